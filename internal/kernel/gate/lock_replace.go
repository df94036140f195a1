package gate

import (
	"errors"
	"fmt"
	"reflect"

	"diglim/internal/kernel/gate/set"
)

// What the lock is there for.
var (
	ErrLocked  = errors.New("the gate is locked until the next boot")
	ErrWeakens = errors.New("the lock does not let the set be weakened")
)

// MayReplace says whether a set may follow another. Under the lock it must not
// be weaker: the keyring that its lists were proved with is the same, and there
// is one; the mode is not lowered; the scope is the same, or none, which lets
// nothing through. Whether the lists are proved is for the caller to know.
func MayReplace(old, new set.Header, locked bool) error {
	if !locked {
		return nil
	}
	switch {
	case old.Anchor == [32]byte{}:
		return fmt.Errorf("the set in force was made without a keyring that a new one could be held against: %w", ErrWeakens)
	case new.Anchor != old.Anchor:
		return fmt.Errorf("the lists were proved with another keyring, %x, than those in force, %x: %w", new.Anchor[:4], old.Anchor[:4], ErrWeakens)
	case new.Mode < old.Mode:
		return fmt.Errorf("mode %s follows %s: %w", new.Mode, old.Mode, ErrWeakens)
	case len(new.Rules) > 0 && !reflect.DeepEqual(new.Rules, old.Rules):
		return fmt.Errorf("the scope is another: %w", ErrWeakens)
	case new.Generation <= old.Generation:
		return fmt.Errorf("generation %d follows %d: %w", new.Generation, old.Generation, ErrWeakens)
	}
	return nil
}
