package weights

import "fmt"

// Options bound what Inspect may open and believe. The zero value of a limit
// means its default.
type Options struct {
	// Roots are where model files may come from. nil allows nothing: a caller whose
	// path is trusted says Unconfined().
	Roots *Roots
	// MaxHeaderBytes bounds one file's header and an index file. Default 100,000,000,
	// the reference library's own limit; the largest published ones are near 20 MB.
	MaxHeaderBytes int64
	// MaxTensors bounds the tensors of a model. Default 1,048,576; a model of 600
	// billion parameters has some 92,000.
	MaxTensors int
	// MaxFiles bounds the shards of a model, each of which holds a descriptor.
	// Default 1,024.
	MaxFiles int
}

// complete fills in defaults and refuses what makes no sense: a programming error.
func (o Options) complete() (Options, error) {
	if o.MaxHeaderBytes == 0 {
		o.MaxHeaderBytes = 100_000_000
	}
	if o.MaxTensors == 0 {
		o.MaxTensors = 1 << 20
	}
	if o.MaxFiles == 0 {
		o.MaxFiles = 1 << 10
	}
	if o.MaxHeaderBytes < 0 || o.MaxTensors < 0 || o.MaxFiles < 0 {
		return o, fmt.Errorf("weights: negative limit in %+v", o)
	}
	return o, nil
}
