package policy_test

import (
	"slices"
	"strings"
	"testing"

	"diglim/internal/policy"
)

func TestCommands(t *testing.T) {
	for _, c := range []struct {
		text   string
		has    []string
		hasNot []string
	}{
		{"set x=1", []string{"set x=1"}, []string{"set x=12", " set x=1", "set x=", "", "set x=1\n"}},
		{"linux /vmlinuz-* root=UUID=* ro", []string{"linux /vmlinuz-6.1.0-56+b1~amd64 root=UUID=94f0-7b36 ro", "linux /vmlinuz- root=UUID= ro"},
			[]string{"linux /vmlinuz-6 root=UUID=9 init=/bin/sh ro", "linux /vmlinuz-6/../evil root=UUID=9 ro", `linux /vmlinuz-6 root=UUID=9" ro`,
				"linux /vmlinuz-6 root=UUID=9\u00a0x ro", "linux /vmlinuz-6 root=UUID=9\tx ro", "linux /vmlinuz-6\n root=UUID=9 ro"}},
		{"menuentry **", []string{"menuentry Debian {\n\tlinux /x\n}", "menuentry ", "menuentry \xff"}, []string{"menuentry", "submenu x", "xmenuentry x"}},
		{`echo \* a.c [b] $x ^`, []string{"echo * a.c [b] $x ^"}, []string{"echo x a.c [b] $x ^", "echo * abc [b] $x ^"}},
		{`a\\*`, []string{`a\`, `a\b`}, []string{`a*`, "a"}},
		{`a\n\\\*`, []string{`a\n\*`}, []string{"a\n"}},
		{"***", []string{"any thing", ""}, nil},
	} {
		var commands policy.Commands
		if err := commands.Add(c.text); err != nil {
			t.Fatal(err)
		}
		for _, text := range c.has {
			if !commands.Has(text) {
				t.Errorf("%q does not have %q", c.text, text)
			}
		}
		for _, text := range c.hasNot {
			if commands.Has(text) {
				t.Errorf("%q has %q", c.text, text)
			}
		}
		if len(c.has) == 1 == (len(commands.Wild()) == 1) { // those that are wild have several here
			t.Errorf("%q: wild %q", c.text, commands.Wild())
		}
		if err := commands.Add(c.text); err == nil {
			t.Errorf("%q: a second time", c.text)
		}
	}
}

// A text that is quoted stands for itself and is not wild.
func FuzzQuoteCommand(f *testing.F) {
	for _, text := range []string{"set x=1", "*", `\`, `\*`, `\\*`, "**", "a\nb", "é*"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" || len(text) > 1<<10 || strings.ToValidUTF8(text, "") != text {
			return
		}
		var commands policy.Commands
		if err := commands.Add(policy.QuoteCommand(text)); err != nil {
			t.Fatal(err)
		}
		if !commands.Has(text) || commands.Has(text+"x") || commands.Has("x"+text) || !slices.Equal(commands.Wild(), nil) {
			t.Errorf("%q: has %v, wild %q", text, commands.Has(text), commands.Wild())
		}
	})
}
