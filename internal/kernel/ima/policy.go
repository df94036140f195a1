package ima

import (
	"strconv"
	"strings"
)

// A policy is IMA's rules, in their order, each cut into words.
type policy [][]string

func parsePolicy(text []byte) policy {
	var p policy
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 0 {
			p = append(p, words)
		}
	}
	return p
}

// do tells whether IMA is sure to perform an action ("measure", "appraise") on
// every digest list that the kernel reads from a file system of that magic
// number. The first rule that applies decides. A rule that may or may not apply
// is not counted on, but feared.
func (p policy) do(action string, magic int64) bool {
	for _, rule := range p {
		if rule[0] != action && rule[0] != "dont_"+action {
			continue
		}
		switch applies, certain := matches(rule[1:], magic); {
		case !applies:
		case rule[0] != action:
			return false
		case certain:
			return true
		}
	}
	return false
}

// matches tells whether a rule's conditions may hold, and whether they must.
func matches(words []string, magic int64) (applies, certain bool) {
	certain = true
	for _, word := range words {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "func":
			if value != "DIGEST_LIST_CHECK" {
				return false, false
			}
		case "fsmagic":
			n, err := strconv.ParseInt(value, 0, 64)
			if err != nil {
				certain = false
			} else if n != magic {
				return false, false
			}
		case "pcr", "template", "appraise_type", "appraise_flag", "appraise_algos":
			// These say how, not when.
		default:
			certain = false
		}
	}
	return true, certain
}
