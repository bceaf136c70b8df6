package actors

import "testing"

// Whoever is at work is waited for; nobody joins afterwards.
func TestACrewThatIsOff(t *testing.T) {
	var c crew
	begun, end := make(chan struct{}), make(chan struct{})
	done := false
	if !c.join(func() { close(begun); <-end; done = true }) {
		t.Fatal("nobody may join a crew that is at work")
	}
	<-begun
	go close(end)
	c.callOff()
	if !done {
		t.Error("it was not waited for")
	}
	if c.join(func() { t.Error("somebody works for a crew that is off") }) {
		t.Error("somebody joined a crew that is off")
	}
}
