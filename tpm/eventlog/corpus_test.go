package eventlog_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"diglim/internal/corpus"
	"diglim/internal/digest"
	"diglim/tpm/eventlog"
)

// logs are the firmware logs of the corpus, by their names below it.
func logs(t *testing.T) map[string][]byte {
	t.Helper()
	samples, err := filepath.Glob(filepath.Join(corpus.Path(t, "eventlog"), "*/*"))
	if err != nil {
		t.Fatal(err)
	}
	guests, err := filepath.Glob(filepath.Join(corpus.Path(t, "vm-evidence"), "*/bios.bin"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, path := range slices.Concat(samples, guests) {
		name := filepath.Base(filepath.Dir(path)) + "/" + filepath.Base(path)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasSuffix(name, ".yaml"), strings.Contains(name, "/sample-tpm-"):
			continue
		case strings.HasSuffix(name, ".b64"):
			if b, err = base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(b), nil))); err != nil {
				t.Fatal(err)
			}
		}
		all[name] = b
	}
	if len(all) < 30 {
		t.Fatalf("%d logs", len(all))
	}
	return all
}

// TestCorpus keeps what becomes of every log of the corpus in
// testdata/corpus.tsv.
func TestCorpus(t *testing.T) {
	var rows []string
	for name, b := range logs(t) {
		l, err := eventlog.Parse(b)
		result := "ok"
		if err != nil {
			result = err.Error()
		}
		unknown, data, text := 0, 0, 0
		for _, e := range l.Events {
			if !e.Type.Known() {
				unknown++
			}
			if len(e.Digests) > 0 {
				if _, ok := e.Proven(e.Digests[len(e.Digests)-1].Algorithm()); ok {
					data++
				}
				if _, ok := e.Text(e.Digests[len(e.Digests)-1].Algorithm()); ok && e.PCR >= 8 {
					text++
				}
			}
		}
		var odd []string
		for _, o := range l.Oddities {
			if !slices.Contains(odd, o.What) {
				odd = append(odd, o.What)
			}
		}
		pcr0 := digest.Digest{}
		if n := len(l.Banks); n > 0 {
			registers, _ := l.Replay(l.Banks[n-1])
			pcr0 = registers[0].Value
		}
		secure := "unclear"
		if n := len(l.Banks); n > 0 {
			if on, err := l.SecureBoot(l.Banks[n-1]); err == nil {
				secure = map[bool]string{true: "on", false: "off"}[on]
			}
		}
		rows = append(rows, fmt.Sprintf("%s\t%d\t%v\t%d\t%d\t%d\t%d\t%s\t%d\t%d: %s\t%s\t%s\n", name, len(b), l.Banks, len(l.Events), data, text, unknown, secure,
			l.Locality, len(l.Oddities), strings.Join(odd, ", "), pcr0, result))
	}
	slices.Sort(rows)
	corpus.Table(t, "testdata/corpus.tsv", "file\tbytes\tbanks\tevents\tdata proven\ttext proven\tunknown types\tSecure Boot\tlocality\toddities\tPCR 0 of the last bank\tresult\n"+strings.Join(rows, ""))
}

// What tpm2_eventlog and the TPMs themselves say the PCRs are.
func TestCorpusReplays(t *testing.T) {
	all := logs(t)
	agreed := 0
	check := func(name string, replayed eventlog.Registers, pcr int, text string) {
		t.Helper()
		want, err := digest.FromHex(replayed[0].Value.Algorithm(), []byte(strings.ToLower(text)))
		if err != nil {
			t.Fatal(err)
		}
		if pcr == 10 {
			return // IMA's
		}
		agreed++
		if got := replayed[pcr].Value; got != want {
			t.Errorf("%s: PCR %d is %s, want %s", name, pcr, got, want)
		}
	}
	second := func(name, text string) {
		l, err := eventlog.Parse(all[name])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		registers, ok := l.Replay(digest.SHA1)
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if alg, err := digest.ByName(strings.TrimSuffix(line, ":")); err == nil {
				registers, ok = l.Replay(alg)
				continue
			}
			key, value, found := strings.Cut(line, ":")
			pcr := 0
			if n, err := fmt.Sscanf(key, "%d", &pcr); n != 1 || err != nil || !found || !ok {
				continue
			}
			check(name, registers, pcr, strings.TrimPrefix(strings.ToLower(strings.TrimSpace(value)), "0x"))
		}
	}
	for name := range all {
		if i := strings.IndexByte(name, '/'); name[:i] == "tpm2-tools" {
			yaml, err := os.ReadFile(filepath.Join(corpus.Path(t, "eventlog"), name+".yaml"))
			if err != nil {
				continue // not every one has a second opinion
			}
			_, pcrs, _ := strings.Cut(string(yaml), "\npcrs:\n")
			second(name, pcrs)
		}
	}
	for _, guest := range []string{"ovmf-tis-6.12cloud-imang", "seabios-crb-6.1cloud-imasig"} {
		second(guest+"/bios.bin", string(corpus.Read(t, "vm-evidence", guest, "pcrs.txt")))
	}
	second("ima-evm-utils/sample-binary_bios_measurements-pcrs-8-9", string(corpus.Read(t, "eventlog", "ima-evm-utils", "sample-tpm-2.0-pcrs-8-9")))
	var windows struct {
		Log struct {
			PCRs []struct {
				Index  int
				Digest []byte
			}
			Raw []byte
		}
	}
	if err := json.Unmarshal(corpus.Read(t, "quote", "go-attestation", "windows_gcp_shielded_vm.json"), &windows); err != nil {
		t.Fatal(err)
	}
	l, err := eventlog.Parse(windows.Log.Raw)
	if err != nil {
		t.Fatal(err)
	}
	registers, ok := l.Replay(digest.SHA1)
	if !ok || len(windows.Log.PCRs) != 24 {
		t.Fatalf("%d PCRs of Windows, %v", len(windows.Log.PCRs), ok)
	}
	for _, pcr := range windows.Log.PCRs {
		check("windows", registers, pcr.Index, hex.EncodeToString(pcr.Digest))
	}
	if agreed < 150 {
		t.Errorf("only %d values compared", agreed)
	}
	t.Logf("%d values compared", agreed)
}
