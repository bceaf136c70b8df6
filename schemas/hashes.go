package schemas

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// TensorHash is the SHA-256 sum of one tensor's bytes.
type TensorHash struct {
	Tensor string
	SHA256 [32]byte
}

// String is the hash as LoadModelRequest.Hashes has it.
func (h TensorHash) String() string { return hex.EncodeToString(h.SHA256[:]) + "  " + h.Tensor }

// TensorHashes reads what TensorHash.String writes: LoadModelRequest.Hashes.
func TensorHashes(lines []string) ([]TensorHash, *Error) {
	seen := make(map[string]bool, len(lines))
	out := make([]TensorHash, len(lines))
	for i, line := range lines {
		sum, name, ok := strings.Cut(line, "  ")
		b, err := hex.DecodeString(sum)
		field := fmt.Sprintf("hashes[%d]", i)
		switch {
		case !ok || name == "" || err != nil || len(b) != len(out[i].SHA256):
			return nil, fieldErrorf(field, "%s is not 64 hexadecimal digits, two spaces and a tensor's name", field)
		case seen[name]:
			return nil, fieldErrorf(field, "tensor %q is named twice", name)
		}
		seen[name] = true
		out[i].Tensor = name
		copy(out[i].SHA256[:], b)
	}
	return out, nil
}
