//go:build !nobpf && (amd64 || arm64)

package gate

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"diglim/internal/kernel/gate/set"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	bpffs = "/sys/fs/bpf"
	// While the gate is made or taken away its directory has the process id in
	// its name. bpffs allows no dots in names.
	inTransit = Dir + "-"
)

// A Gate is the one that this kernel has.
type Gate struct {
	sets, events, counters *ebpf.Map
}

// Start makes the gate and puts the set in force, or leaves everything as it
// was. If the process is killed there is no gate, one that decides nothing and
// that the next Start replaces, or a complete one. It returns ErrRunning if
// there is one.
func Start(image *set.Image) (*Gate, error) {
	if err := Probe(); err != nil {
		return nil, err
	}
	if err := mountBPF(); err != nil {
		return nil, err
	}
	unlock, err := lockPins()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := sweep(); err != nil {
		return nil, err
	}

	// The set comes first: what can go wrong with it goes wrong before there
	// is a gate.
	m, err := newImageMap(image)
	if err != nil {
		return nil, err
	}
	defer m.Close()

	dir := inTransit + strconv.Itoa(os.Getpid())
	g, err := attach(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := os.Rename(dir, Dir); err != nil {
		return nil, errors.Join(err, g.Close(), os.RemoveAll(dir))
	}
	if err := g.sets.Put(uint32(0), m); err != nil {
		return nil, errors.Join(fmt.Errorf("put the first set in force: %w", err), g.Close(), os.RemoveAll(Dir))
	}
	return g, nil
}

// attach loads and attaches the programs, and pins everything in a new
// directory. There is no set yet, so the programs decide nothing.
func attach(dir string) (_ *Gate, err error) {
	spec, err := readObject(gateObject)
	if err != nil {
		return nil, err
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, err
	}
	other, err := otherSetattr(kernel)
	if err != nil {
		return nil, err
	}
	delete(spec.Programs, other)
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, err
	}
	// What is pinned or attached stays when the collection is closed.
	defer c.Close()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	for name, program := range c.Programs {
		if err := attachProgram(program, filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	g := &Gate{}
	for name, m := range g.pins() {
		if err := c.Maps[name].Pin(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		*m = c.DetachMap(name)
	}
	return g, nil
}

// attachProgram attaches a program for as long as pin exists.
func attachProgram(program *ebpf.Program, pin string) error {
	l, err := link.AttachLSM(link.LSMOptions{Program: program})
	if err != nil {
		return err
	}
	return errors.Join(l.Pin(pin), l.Close())
}

// otherSetattr returns the name of the program for the inode_setattr hook that
// this kernel does not have: the hook got an argument more in 6.10.
func otherSetattr(kernel *btf.Spec) (string, error) {
	var hook *btf.Func
	if err := kernel.TypeByName("bpf_lsm_inode_setattr", &hook); err != nil {
		return "", err
	}
	proto, ok := hook.Type.(*btf.FuncProto)
	if !ok {
		return "", fmt.Errorf("bpf_lsm_inode_setattr is a %v", hook.Type)
	}
	if len(proto.Params) == 2 {
		return "diglim_setattr2", nil
	}
	return "diglim_setattr", nil
}

// Open returns the gate that this kernel has, or ErrNone. If something has been
// mounted over its pins, it is found by its number in the kernel. Under the lock
// only a parser can have it.
func Open() (*Gate, error) {
	locked, err := Locked()
	if err != nil {
		return nil, err
	}
	if locked {
		g, err := openByID()
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("%w, and this process is no parser", ErrLocked)
		}
		return g, err
	}
	g, err := openPinned()
	if errors.Is(err, ErrNone) {
		return openHidden()
	}
	return g, err
}

// pins are the maps to open, by their names.
func (g *Gate) pins() map[string]**ebpf.Map {
	return map[string]**ebpf.Map{"sets": &g.sets, "events": &g.events, "counters": &g.counters}
}

func openPinned() (*Gate, error) {
	if _, err := os.Stat(Dir); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	g := &Gate{}
	for name, m := range g.pins() {
		var err error
		if *m, err = ebpf.LoadPinnedMap(filepath.Join(Dir, name), nil); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), g.Close())
		}
	}
	return g, nil
}

// openHidden returns the gate whose program is attached and has a set. One
// without a set is on its way, or being taken away.
func openHidden() (*Gate, error) {
	var it link.Iterator
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			return nil, err
		}
		program, err := ebpf.NewProgramFromID(info.Program)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("program %d: %w", info.Program, err)
		}
		g, err := gateOf(program)
		program.Close()
		if err != nil {
			return nil, err
		}
		if g == nil {
			continue
		}
		live, err := g.live()
		if live {
			return g, nil
		}
		if err := errors.Join(err, g.Close()); err != nil {
			return nil, err
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	return nil, ErrNone
}

// gateOf returns the gate that a program belongs to, if it is the one for exec,
// and otherwise nil.
func gateOf(program *ebpf.Program) (*Gate, error) {
	info, err := program.Info()
	if err != nil {
		return nil, fmt.Errorf("%v: %w", program, err)
	}
	ids, _ := info.MapIDs()
	if info.Type != ebpf.LSM || info.Name != "diglim_exec" {
		return nil, nil
	}
	g := &Gate{}
	pins := g.pins()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("map %d: %w", id, err), g.Close())
		}
		info, err := m.Info()
		if err != nil {
			return nil, errors.Join(err, m.Close(), g.Close())
		}
		if to := pins[info.Name]; to != nil && *to == nil {
			*to = m
		} else {
			m.Close()
		}
	}
	for name, m := range pins {
		if *m == nil {
			return nil, errors.Join(fmt.Errorf("program %s has no map %s", info.Name, name), g.Close())
		}
	}
	return g, nil
}

// live reports whether there is a set.
func (g *Gate) live() (bool, error) {
	var id uint32
	err := g.sets.Lookup(uint32(0), &id)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Close forgets the gate; it stays in the kernel.
func (g *Gate) Close() error {
	return errors.Join(g.sets.Close(), g.events.Close(), g.counters.Close())
}

// Replace puts another set in force, whose generation must be the next one:
// ErrChanged says that it is not. Every decision is made by the old set or by
// the new one, also if the process is killed.
func (g *Gate) Replace(image *set.Image) error {
	m, err := newImageMap(image)
	if err != nil {
		return err
	}
	defer m.Close()
	unlock, err := lockPins()
	if err != nil {
		return err
	}
	defer unlock()
	var generation uint64
	err = g.view(func(old *set.Image, _ *ebpf.Map) error {
		generation = old.Header().Generation
		return nil
	})
	if err != nil {
		return err
	}
	if image.Header().Generation != generation+1 {
		return fmt.Errorf("generation %d is in force, %d would follow it: %w", generation, image.Header().Generation, ErrChanged)
	}
	if err := g.sets.Put(uint32(0), m); err != nil {
		return fmt.Errorf("put the set in force: %w", err)
	}
	return nil
}

// Image returns a copy of the set that is in force.
func (g *Gate) Image() (*set.Image, error) {
	var image *set.Image
	err := g.view(func(m *set.Image, _ *ebpf.Map) (err error) {
		image, err = set.Parse(bytes.Clone(m.Bytes()))
		return err
	})
	return image, err
}

// view shows the set in force, where it is. It must not be used after f has
// returned.
func (g *Gate) view(f func(*set.Image, *ebpf.Map) error) error {
	for {
		var m *ebpf.Map
		err := g.sets.Lookup(uint32(0), &m)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("it decides nothing: %w", ErrNone)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // replaced between finding its id and opening it
		}
		if err != nil {
			return fmt.Errorf("set in force: %w", err)
		}
		defer m.Close()
		return viewMap(m, f)
	}
}

func viewMap(m *ebpf.Map, f func(*set.Image, *ebpf.Map) error) error {
	if m.ValueSize() != set.BlockSize {
		return fmt.Errorf("set in force: values of %d bytes", m.ValueSize())
	}
	data, err := unix.Mmap(m.FD(), 0, int(m.MaxEntries())*set.BlockSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("set in force: mmap: %w", err)
	}
	defer unix.Munmap(data)
	image, err := set.Parse(data)
	if err != nil {
		return fmt.Errorf("set in force: %w", err)
	}
	return f(image, m)
}

// newImageMap makes a map of the image that nobody can change any more.
func newImageMap(image *set.Image) (_ *ebpf.Map, err error) {
	data := image.Bytes()
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "diglim_image", Type: ebpf.Array, KeySize: 4, ValueSize: set.BlockSize,
		MaxEntries: uint32(len(data) / set.BlockSize), Flags: unix.BPF_F_MMAPABLE | unix.BPF_F_INNER_MAP,
	})
	if err != nil {
		return nil, fmt.Errorf("map of %d bytes: %w", len(data), err)
	}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	err = withMapping(m, len(data), unix.PROT_READ|unix.PROT_WRITE, func(mapped []byte) error {
		copy(mapped, data)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := m.Freeze(); err != nil {
		return nil, fmt.Errorf("freeze the map: %w", err)
	}
	// What was written before it was frozen can be told only now.
	err = withMapping(m, len(data), unix.PROT_READ, func(mapped []byte) error {
		if !bytes.Equal(mapped, data) {
			return errors.New("somebody has written into the map")
		}
		return nil
	})
	return m, err
}

// withMapping maps the values of a map for as long as f runs.
func withMapping(m *ebpf.Map, size, prot int, f func([]byte) error) error {
	mapped, err := unix.Mmap(m.FD(), 0, size, prot, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap of a map: %w", err)
	}
	return errors.Join(f(mapped), unix.Munmap(mapped))
}

// Stop takes the gate away. It decides nothing as soon as the set is gone; the
// kernel lets go of the programs within seconds.
func Stop() error {
	unlock, err := lockPins()
	if err != nil {
		return err
	}
	defer unlock()
	locked, err := Locked()
	if err != nil {
		return err
	}
	if locked {
		return ErrLocked
	}
	g, err := Open()
	if err != nil {
		return err
	}
	defer g.Close()
	if err := g.sets.Delete(uint32(0)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("take the set out of force: %w", err)
	}
	// Hidden pins stay: then so does a gate that decides nothing.
	dir := inTransit + strconv.Itoa(os.Getpid())
	if err := os.Rename(Dir, dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// sweep takes away what killed processes have left: directories on their way,
// and a gate that never got a set. Pins must be locked.
func sweep() error {
	entries, err := os.ReadDir(bpffs)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(bpffs+"/"+e.Name(), inTransit) {
			if err := os.RemoveAll(filepath.Join(bpffs, e.Name())); err != nil {
				return err
			}
		}
	}
	g, err := Open()
	if errors.Is(err, ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer g.Close()
	live, err := g.live()
	if err != nil {
		return err
	}
	if live {
		return ErrRunning
	}
	return os.RemoveAll(Dir)
}

// mountBPF mounts bpffs where it belongs, unless it is there.
func mountBPF() error {
	var st unix.Statfs_t
	if err := unix.Statfs(bpffs, &st); err == nil && st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700"); err != nil {
		return fmt.Errorf("mount bpffs on %s: %w", bpffs, err)
	}
	return nil
}

// lockPins waits until no other process changes the gate. The kernel unlocks
// when the process ends.
func lockPins() (unlock func(), err error) {
	fd, err := unix.Open(bpffs, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", bpffs, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("lock %s: %w", bpffs, err)
	}
	return func() { unix.Close(fd) }, nil
}
