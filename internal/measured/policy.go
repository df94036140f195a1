package measured

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits on a policy in bytes.
const (
	MaxPolicy = 64 << 10
	// MaxRule is that of a line with its end: of what is longer than a page less
	// one byte the kernel takes that much (ima_write_policy in ima_fs.c).
	MaxRule = 4095
)

// Rule is the rule of IMA's policy that has the files of UID measured.
func Rule(pcr int) string {
	return fmt.Sprintf("measure func=FILE_CHECK mask=^MAY_READ fowner=%d pcr=%d template=ima-ng", uint32(UID), pcr)
}

// builtin are the policies that the kernel has built in, by the words of
// ima_policy=, and that a policy of one's own takes the place of, as rules
// (ima_policy.c: dont_measure_rules, default_measurement_rules,
// critical_data_rules).
var builtin = map[string]string{
	"tcb": `dont_measure fsmagic=0x9fa0
dont_measure fsmagic=0x62656572
dont_measure fsmagic=0x64626720
dont_measure fsmagic=0x01021994 func=FILE_CHECK
dont_measure fsmagic=0x1cd1
dont_measure fsmagic=0x42494e4d
dont_measure fsmagic=0x73636673
dont_measure fsmagic=0xf97cff8c
dont_measure fsmagic=0x43415d53
dont_measure fsmagic=0x27e0eb
dont_measure fsmagic=0x63677270
dont_measure fsmagic=0x6e736673
dont_measure fsmagic=0xde5e81e4
measure func=MMAP_CHECK mask=MAY_EXEC
measure func=BPRM_CHECK mask=MAY_EXEC
measure func=FILE_CHECK mask=^MAY_READ euid=0
measure func=FILE_CHECK mask=^MAY_READ uid=0
measure func=MODULE_CHECK
measure func=FIRMWARE_CHECK
measure func=POLICY_CHECK
`,
	"critical_data": "measure func=CRITICAL_DATA\n",
	"fail_securely": "", // no rule: it stays in force
}

// Policy is the text that is given to the kernel as IMA's policy, which can be
// done once a boot: Rule, then own, the administrator's policy. The first rule
// that matches decides, so no rule of own gets the files of UID.
//
// Without any of own come the rules that the kernel command line asks for
// (ima_policy=), which would be lost otherwise. With one it is as always: it
// takes their place.
//
// Errors name the line of own, or the word of the command line.
func Policy(pcr int, cmdline string, own []byte) ([]byte, error) {
	if err := CheckPCR(pcr); err != nil {
		return nil, err
	}
	if len(own) > MaxPolicy {
		return nil, fmt.Errorf("%d bytes of policy, the limit is %d", len(own), MaxPolicy)
	}
	text := []byte(Rule(pcr) + "\n")
	rules := 0
	n := 0
	for line := range bytes.Lines(own) {
		n++
		isRule, err := checkRule(line, pcr)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if isRule {
			rules++
		}
	}
	if rules > 0 {
		text = append(text, own...)
		if own[len(own)-1] != '\n' {
			text = append(text, '\n')
		}
		return text, nil
	}
	for _, word := range kernelPolicies(cmdline) {
		rules, ok := builtin[word]
		if !ok {
			return nil, fmt.Errorf("%s on the kernel command line asks for rules that a policy of one's own takes the place of: they have to be in it", word)
		}
		text = append(text, rules...)
	}
	return text, nil
}

// checkRule says why the kernel would not take a line, or would take it for
// something else, and whether it is a rule: neither empty nor a comment.
func checkRule(line []byte, pcr int) (bool, error) {
	words := strings.Fields(string(line))
	switch {
	case len(line) >= MaxRule: // an end may be missing
		return false, fmt.Errorf("%d bytes, the limit is %d", len(line), MaxRule-1)
	case bytes.IndexByte(line, 0) >= 0:
		return false, errors.New("zero byte")
	case len(words) == 0 || words[0][0] == '#':
		return false, nil
	case line[0] == '/':
		return false, errors.New("the path of a policy, not a rule")
	case slices.Contains(words, fmt.Sprintf("pcr=%d", pcr)):
		return false, fmt.Errorf("the rule measures into PCR %d too, whose value nobody would then know", pcr)
	}
	return true, nil
}

// kernelPolicies are the built-in policies that a kernel command line asks for,
// each once.
func kernelPolicies(cmdline string) (words []string) {
	for _, field := range splitCommandLine(cmdline) {
		switch name, value, _ := strings.Cut(field, "="); name {
		case "ima_policy":
			// policy_setup in ima_policy.c splits at these.
			words = append(words, strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" |\n", r) })...)
		case "ima_tcb", "ima_appraise_tcb":
			words = append(words, name)
		}
	}
	slices.Sort(words)
	words = slices.Compact(words)
	slices.Reverse(words) // tcb, with its dont_measure in front, is the last by name
	return words
}

// splitCommandLine cuts a kernel command line into parameters: spaces between
// double quotes belong to one, the quotes do not (next_arg in lib/cmdline.c).
func splitCommandLine(cmdline string) (fields []string) {
	quoted := false
	for _, field := range strings.FieldsFunc(cmdline, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n')
	}) {
		fields = append(fields, strings.ReplaceAll(field, `"`, ""))
	}
	return fields
}
