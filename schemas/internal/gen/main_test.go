package main

import (
	"bytes"
	"os"
	"testing"
)

func TestGeneratedFileIsCurrent(t *testing.T) {
	in, err := os.ReadFile("../../errors.json")
	if err != nil {
		t.Fatal(err)
	}
	want, err := render(in)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../errors_gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("errors_gen.go is not what errors.json makes: run go generate ./schemas")
	}
}

func TestABadTableIsRefused(t *testing.T) {
	for name, in := range map[string]string{
		"not JSON":        `{`,
		"a code twice":    `{"codes":[{"code":"A","status":400,"when":"x"},{"code":"A","status":400,"when":"x"}]}`,
		"no words":        `{"codes":[{"code":"A","status":400}]}`,
		"not an error":    `{"codes":[{"code":"A","status":200,"when":"x"}]}`,
		"unknown mapping": `{"codes":[],"older_names":[{"name":"OLD","codes":["A"],"of":"x"}]}`,
		"unknown key":     `{"codez":[]}`,
	} {
		if _, err := render([]byte(in)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
