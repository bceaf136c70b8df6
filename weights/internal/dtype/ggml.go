package dtype

// ggml's type numbers are the positions of its enum; some were withdrawn (4, 5,
// 31–33, 36–38: formats that no released file may use any more) and stay unknown.
var ggml = map[uint32]Type{
	0:  {"F32", 1, 4 * 8},
	1:  {"F16", 1, 2 * 8},
	2:  {"GGUF_Q4_0", 32, 18 * 8},
	3:  {"GGUF_Q4_1", 32, 20 * 8},
	6:  {"GGUF_Q5_0", 32, 22 * 8},
	7:  {"GGUF_Q5_1", 32, 24 * 8},
	8:  {"GGUF_Q8_0", 32, 34 * 8},
	9:  {"GGUF_Q8_1", 32, 36 * 8}, // two half floats and 32 bytes, as in ggml; its Python package still says 40
	10: {"GGUF_Q2_K", 256, 84 * 8},
	11: {"GGUF_Q3_K", 256, 110 * 8},
	12: {"GGUF_Q4_K", 256, 144 * 8},
	13: {"GGUF_Q5_K", 256, 176 * 8},
	14: {"GGUF_Q6_K", 256, 210 * 8},
	15: {"GGUF_Q8_K", 256, 292 * 8},
	16: {"GGUF_IQ2_XXS", 256, 66 * 8},
	17: {"GGUF_IQ2_XS", 256, 74 * 8},
	18: {"GGUF_IQ3_XXS", 256, 98 * 8},
	19: {"GGUF_IQ1_S", 256, 50 * 8},
	20: {"GGUF_IQ4_NL", 32, 18 * 8},
	21: {"GGUF_IQ3_S", 256, 110 * 8},
	22: {"GGUF_IQ2_S", 256, 82 * 8},
	23: {"GGUF_IQ4_XS", 256, 136 * 8},
	24: {"I8", 1, 1 * 8},
	25: {"I16", 1, 2 * 8},
	26: {"I32", 1, 4 * 8},
	27: {"I64", 1, 8 * 8},
	28: {"F64", 1, 8 * 8},
	29: {"GGUF_IQ1_M", 256, 56 * 8},
	30: {"BF16", 1, 2 * 8},
	34: {"GGUF_TQ1_0", 256, 54 * 8},
	35: {"GGUF_TQ2_0", 256, 66 * 8},
	39: {"GGUF_MXFP4", 32, 17 * 8},
	40: {"GGUF_NVFP4", 64, 36 * 8},
	41: {"GGUF_Q1_0", 128, 18 * 8},
}

// GGML finds a type by the number that a GGUF file uses.
func GGML(id uint32) (Type, bool) {
	t, ok := ggml[id]
	return t, ok
}

// GGMLID finds the number of a type that GGUF files can hold by its name.
func GGMLID(name string) (uint32, bool) {
	for id, t := range ggml {
		if t.Name == name {
			return id, true
		}
	}
	return 0, false
}

// GGMLIDs are all numbers that GGML knows, in no particular order.
func GGMLIDs() []uint32 {
	ids := make([]uint32, 0, len(ggml))
	for id := range ggml {
		ids = append(ids, id)
	}
	return ids
}

// ByName finds any type by its name in the contract.
func ByName(name string) (Type, bool) {
	if t, ok := Safetensors(name); ok {
		return t, true
	}
	if id, ok := GGMLID(name); ok {
		return GGML(id)
	}
	return Type{}, false
}
