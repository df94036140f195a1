# make demo   plays the whole story: packages, lists, a booted kernel, a quote, a verdict
# make test   runs all tests, those in guests too
# make help   lists the rest

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
FUZZTIME ?= 30s

commands = diglim-gen diglim-upload attest-verify
man      = $(commands:%=docs/man/%.1)

export CGO_ENABLED = 0

.PHONY: all test lint fuzz demo vm bench man install install-apt dist clean help deps generate $(commands) diglim-upload-lean

all: $(commands)  ## build the three programs into bin/

$(commands):
	$(GO) build -trimpath -buildvcs=auto -ldflags '-s -w' -o bin/$@ ./cmd/$@

diglim-upload-lean:  ## build the uploader without BPF and OpenPGP into bin/, for kernels that verify lists
	$(GO) build -tags nobpf -trimpath -buildvcs=auto -ldflags '-s -w' -o bin/$@ ./cmd/diglim-upload

deps:  ## install the Debian packages that tests and demo need (as root)
	@test/install-deps

test: deps  ## run all tests, those in guests too
	$(GO) vet ./...
	$(GO) test -timeout 60m ./...

vm: deps  ## run only the tests in guests, and say what they do
	$(GO) test -count=1 -timeout 60m -v ./test/vm/...

demo: deps all  ## play the whole story
	@$(GO) run ./test/vm/demo

lint: deps  ## what must be clean before a change lands
	$(GO) mod tidy -diff
	@test -z "$$(gofmt -l .)" || { echo 'not formatted:'; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	GOARCH=arm64 $(GO) build ./...
	GOARCH=s390x $(GO) vet ./...
	shellcheck .ci/run internal/kernel/gate/compile test/install-deps dist/apt/dpkg-lists dist/rpm/diglim-update \
		dist/dracut/98diglim/* dist/initramfs-tools/hooks/* dist/initramfs-tools/scripts/*/*
	@test/vulncheck

generate: deps  ## compile the BPF programs, whose objects are committed
	$(GO) generate ./internal/kernel/gate

fuzz:  ## run every fuzz target for FUZZTIME (30s)
	@test/fuzz $(FUZZTIME)

bench:  ## compare with peers, in one run
	$(GO) run ./bench
	$(GO) run ./bench/digestset
	$(GO) run ./bench/gate

man:  ## check the manual pages
	@for page in $(man); do man --warnings=w -l "$$page" >/dev/null || exit 1; done

# What makes an initramfs looks for its parts below /usr: PREFIX=/usr there. The
# kernel of DIGLIM calls the uploader by a name of its own.
install: all  ## install programs, manual pages and initramfs hooks below DESTDIR/PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/libexec/diglim
	install -m 755 $(commands:%=bin/%) $(DESTDIR)$(PREFIX)/bin
	ln -sf ../../bin/diglim-upload $(DESTDIR)$(PREFIX)/libexec/diglim/upload_digest_lists
	install -m 644 $(man) $(DESTDIR)$(PREFIX)/share/man/man1
	cd dist/dracut && install -D -m 755 -t $(abspath $(DESTDIR)$(PREFIX)/lib/dracut/modules.d/98diglim) 98diglim/*
	cd dist/initramfs-tools && for script in hooks/* scripts/*/*; do \
		install -D -m 755 $$script $(abspath $(DESTDIR)$(PREFIX)/share/initramfs-tools)/$$script || exit 1; done

install-apt: install  ## install the hooks for apt and dpkg too
	install -D -m 755 dist/apt/dpkg-lists $(DESTDIR)$(PREFIX)/libexec/diglim/dpkg-lists
	install -D -m 644 dist/apt/00diglim $(DESTDIR)/etc/apt/apt.conf.d/00diglim
	install -D -m 644 dist/apt/dpkg.cfg $(DESTDIR)/etc/dpkg/dpkg.cfg.d/diglim

dist:  ## make build/diglim.tar.gz of what is committed
	mkdir -p build
	git archive --prefix=diglim/ -o build/diglim.tar.gz HEAD

clean:  ## remove what was built; kernels for guests too
	rm -rf bin build

help:
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' Makefile | expand -t 20
