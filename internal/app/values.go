package app

// MergeValues returns base with over merged into it, as Helm merges values: maps key by key, everything else
// as a whole, and null removes what was there. A map and something else that meet are not merged: over's
// stands. The result holds no null but inside lists, which are taken as they are. It shares lists and
// whatever is not a map with its arguments, which are not changed; nil stands for no values.
func MergeValues(base, over map[string]any) map[string]any {
	out := make(map[string]any, len(base)+len(over))
	for key, value := range base {
		if value != nil {
			out[key] = withoutNull(value)
		}
	}
	for key, value := range over {
		below, _ := out[key].(map[string]any)
		switch value := value.(type) {
		case nil:
			delete(out, key)
		case map[string]any:
			out[key] = MergeValues(below, value)
		default:
			out[key] = value
		}
	}
	return out
}

// withoutNull drops nulls of a map and of maps in it.
func withoutNull(value any) any {
	if m, ok := value.(map[string]any); ok {
		return MergeValues(m, nil)
	}
	return value
}
