package node

import "strings"

// nearest suggests the setting that a misspelled key may mean.
func (l *loader) nearest(key string) string {
	var keys []string
	for _, r := range l.rows {
		if !r.Hidden {
			keys = append(keys, r.Key)
		}
	}
	normal := strings.ReplaceAll(strings.ToLower(key), "-", "_")
	if best, ok := Nearest(normal, keys); ok {
		return "did you mean " + best + "?"
	}
	return "`isobar config` lists every setting"
}

func (l *loader) nearestEnv(name string) string {
	var names []string
	for _, r := range l.rows {
		if !r.Hidden {
			names = append(names, r.Env)
		}
	}
	if best, ok := Nearest(strings.ToUpper(name), names); ok {
		return "did you mean " + best + "?"
	}
	return "`isobar config` lists every setting; unset it"
}

// Nearest finds the name that a misspelled one may mean: within a third of its
// letters, or a longer name of which it is a part.
func Nearest(name string, among []string) (string, bool) {
	best, bestDistance := "", 1+max(1, len(name)/3)
	for _, candidate := range among {
		if d := distance(name, candidate); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	if best != "" {
		return best, true
	}
	for _, candidate := range among {
		if len(name) >= 3 && strings.Contains(candidate, name) {
			return candidate, true
		}
	}
	return "", false
}

// distance counts the letters to insert, delete, replace or swap with their neighbour.
func distance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := above[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(above[j]+1, row[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}
