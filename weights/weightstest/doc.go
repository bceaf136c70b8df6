// Package weightstest writes synthetic models and takes loads into plain memory,
// for tests and benchmarks of this and other rooms.
//
// A Spec names tensors; their bytes follow from the seed, the tensor's number and
// the byte's position alone. So files of any size are streamed without being held in
// memory, and any range can be checked later without the file. Writers overwrite what
// is there. Nothing here is safe for concurrent use on one value, except Memory.Fill
// on disjoint ranges. Errors are those of the file system, or a Spec that its format
// cannot hold.
package weightstest
