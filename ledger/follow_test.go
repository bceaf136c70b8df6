package ledger_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
)

// following is a device of 1000 pages with a reservation of 300 that follows a process.
func following(t *testing.T) (m *ledgertest.Machine, id uuid.UUID, look func(outside, use int64), sample func(outside int64)) {
	t.Helper()
	const page = 4096
	m, err := ledgertest.NewMachine(ledgertest.Settings(1000*page), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(m.Call(func() {
		m.Core.Allocate(&ledger.Request{Ref: "r", Owner: ledger.Owner{Tenant: "red"}, Class: ledger.ClassReservation, Size: 300 * page,
			Follows: ledger.Process{PID: 42, Start: 7}}, m.Now)
	}))
	id = m.Final["r"].Grant.ID
	return m, id, func(outside, use int64) {
			t.Helper()
			must(m.CallOver(func() {
				m.Core.Absorb([]ledger.Use{{Grant: id, Bytes: use * page}})
				m.Core.SetOutside(outside*page, 1000*page, m.Now)
			}))
		}, func(outside int64) {
			t.Helper()
			must(m.CallOver(func() { m.Core.SetOutside(outside*page, 1000*page, m.Now) }))
		}
}

func figures(t *testing.T, m *ledgertest.Machine, when string, reserved, foreign int64) {
	t.Helper()
	f := m.Core.Figures()
	if f.Reserved/4096 != reserved || f.Foreign/4096 != foreign || f.Used != f.Reserved+f.Foreign {
		t.Errorf("%s: reserved %d, foreign %d of %d used, want %d and %d", when, f.Reserved/4096, f.Foreign/4096, f.Used/4096, reserved, foreign)
	}
}

func TestAReservationCountsWhatItsTreeUses(t *testing.T) {
	m, id, look, sample := following(t)
	figures(t, m, "promised", 300, 0)
	look(150, 100)
	figures(t, m, "the tree uses less than promised", 300, 50)
	look(450, 400)
	figures(t, m, "it uses more", 400, 50)
	sample(500)
	figures(t, m, "others or the tree grew, which is not known yet", 400, 100)
	sample(300)
	figures(t, m, "somebody shrank: nothing is promised on a guess", 400, 100)
	look(300, 250)
	figures(t, m, "it was the tree", 300, 50)
	if err := m.CallOver(func() {
		m.Core.Release(ledger.ReleaseRequest{Grant: id, Tenant: "red", Force: true, Why: ledger.WhyProcess}, m.Now)
	}); err != nil {
		t.Fatal(err)
	}
	figures(t, m, "what the tree still uses is foreign once the reservation has ended", 0, 300)
	sample(50)
	figures(t, m, "and then it is gone", 0, 50)
}

func TestAFollowedProcessSurvivesARestart(t *testing.T) {
	m, id, look, _ := following(t)
	look(400, 400)
	im, err := ledger.ReadImage(m.Mem)
	if err != nil {
		t.Fatal(err)
	}
	d, _, err := ledger.Restore(m.Config, im, nil, m.Now)
	if err != nil {
		t.Fatal(err)
	}
	g, ok := d.Grant(id)
	if !ok || g.Follows != (ledger.Process{PID: 42, Start: 7}) || g.Uses != 0 || d.Figures().Reserved != 300*4096 {
		t.Fatalf("restored %+v with %+v", g, d.Figures())
	}
	if err := d.Check(); err != nil {
		t.Error(err)
	}
	// A clean stop leaves it: its process lives.
	if stay, _ := d.Drain(false, m.Now); stay != 1 {
		t.Errorf("%d reservations of living processes stay", stay)
	}
}
