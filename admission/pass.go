package admission

// Foreseen is how many portions of bytes on their way Slack looks at: it tries the orders
// in which they can come back. Where there are more it lets nobody pass.
const Foreseen = 12

// Slack is how many bytes may be taken now so that one who waits is served no later for it.
// He lacks some, which the portions that are coming will give him. Whichever come first, and
// whichever of those come that may never, at the very moment at which he has all he lacks
// so much is left over. It is less than 0 where what is coming is not enough, and what is
// free beyond the need where nothing lacks.
func Slack(lacks int64, coming, perhaps []int64) int64 {
	if lacks <= 0 {
		return -lacks
	}
	var sure int64
	for _, n := range coming {
		sure += n
	}
	if sure < lacks || len(coming)+len(perhaps) > Foreseen {
		return -1
	}
	var few [Foreseen]int64
	portions, all := append(append(few[:0], coming...), perhaps...), sure
	for _, n := range perhaps {
		all += n
	}
	return least(lacks, all, portions) - lacks
}

// least is the smallest sum of portions that is no less than the need; all is the sum of
// all of them, which is not less either.
func least(need, all int64, portions []int64) int64 {
	if need <= 0 {
		return 0
	}
	n, rest := portions[0], portions[1:]
	best := n + least(need-n, all-n, rest)
	if all-n >= need {
		best = min(best, least(need, all-n, rest))
	}
	return best
}
