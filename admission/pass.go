package admission

// Foreseen is how many portions of bytes on their way Slack looks at: it tries the orders
// in which they can come back. Where there are more it lets nobody pass.
const Foreseen = 12

// Slack is how many bytes may be taken now so that one who waits is served no later for it:
// at the very moment at which so many of the portions on their way have come back that it has
// all it lacks, whichever come first, there is so much left over. It is less than 0 where
// they are not enough, and what is free already beyond the need where nothing lacks.
func Slack(lacks int64, coming []int64) int64 {
	if lacks <= 0 {
		return -lacks
	}
	if len(coming) > Foreseen {
		return -1
	}
	var all int64
	for _, n := range coming {
		all += n
	}
	if all < lacks {
		return -1
	}
	return least(lacks, all, coming) - lacks
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
