// Package rules holds the tree to the rules of the house: which room may import
// what, that pure rooms stay pure, that time comes from package clock alone, and how
// files, comments and documents look. It has no code, only tests, which read the
// sources of the whole module and build nothing.
//
// The tables are in house_test.go. A rule that stands in the way of something sound is
// changed there, with its reason beside it, and a decision record if it is about the
// direction of imports. An exception is one line that names a file and says why.
//
// # Testing
//
// Each rule is a subtest of TestRules, and each finding names file and line. TestRulesFind
// shows every rule a small tree that breaks it.
package rules
