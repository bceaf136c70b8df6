// Package pressure decides how tight a device's or a tenant's memory is: a
// level of low, moderate, high or critical, when it changes, and what would have
// to be released to leave it.
//
// An Evaluator is fed with the figures of one device whenever they change, and
// called back when it asks for it. It has no goroutine, clock or lock: one caller
// at a time, time goes in as an Instant that never goes back.
//
// # Rules
//
//   - Up at once, over several levels in one change if need be, when the share
//     reaches a level's Enter. Unpaid demand (Figures.Deficit) is high at least.
//   - Down one level at a time, when the share has been under the level's Leave
//     for its dwell without interruption; the dwell of the next level begins
//     with the fall. While an unload is in flight a due fall waits, at most
//     Config.UnloadHold.
//   - What the kernel itself says (Figures.Stall, kept by Stalls) raises the level too,
//     and while it does the level does not fall.
//   - What others are about to fill (Figures.Foreign, foreseen by a Forecaster within
//     Config.Horizon) raises to moderate or high a little early, with the target that the
//     level's threshold would bring; a level that is foreseen does not fall. Nothing is
//     foreseen of own bytes: grants and reservations are counted in full before they are
//     used. Critical is never foreseen. Figures that are stale foresee nothing.
//   - Two changes in a row never name the same level: a hovering figure makes
//     silence, not noise.
//   - While critical with a deficit, a reminder each Config.Reminder.
//
// An episode lasts from leaving low to returning to it; its number is in every
// change of it, the last one included.
//
// # Driving one
//
// Call Step with every change of the figures and every sample, Tick when Next
// says so, Configure when limits are set. Each answers with at most one change to
// publish; State has the rest of what an event shows. An evaluation allocates
// nothing and takes well under 100 ns.
//
// A Pace, fed with the same samples, says when the next one is due: half of what the
// headroom lasts at the speed at which it fills, or could, within Sampling's bounds.
package pressure
