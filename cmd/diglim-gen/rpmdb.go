package main

import (
	"errors"
	"fmt"
	"slices"

	"diglim/internal/cli"
	"diglim/internal/source/rpmdb"
	"diglim/rpmhdr"

	"github.com/spf13/cobra"
)

// databaseKeys is the --keyring that stands for the keys in the database.
const databaseKeys = "rpmdb"

func rpmdbCommand() *cobra.Command {
	var g generator
	var root, dbpath string
	cmd := &cobra.Command{
		Use:   "rpmdb [flags]",
		Short: "make digest lists of installed RPM packages",
		Long: `Reads the headers of installed packages out of rpm's database (SQLite, ndb or
Berkeley DB, wherever the distribution keeps it), rebuilds each as the vendor
signed it, and proves it by that signature. The database is opened read-only and
not locked; if rpm changes it meanwhile, that is an error.

--keyring rpmdb trusts the keys that are installed in the database. They prove
that the packages are those that rpm installed, no more: who can write to the
database can install a key.`,
		Args: cobra.NoArgs,
	}
	g.flags(cmd, "rpm")
	cmd.Flags().StringVar(&root, "root", "/", "the root `directory` of the system")
	cmd.Flags().StringVar(&dbpath, "dbpath", "", "the database itself, a `file` or directory")
	cmd.MarkFlagsMutuallyExclusive("root", "dbpath")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		given := len(g.trust.keyrings)
		g.trust.keyrings = slices.DeleteFunc(g.trust.keyrings, func(k string) bool { return k == databaseKeys })
		g.trust.own = len(g.trust.keyrings) < given
		if err := g.prepare(cmd.ErrOrStderr()); err != nil {
			return err
		}
		var db *rpmdb.DB
		if dbpath != "" {
			db, err = rpmdb.Open(dbpath)
		} else {
			db, err = rpmdb.Find(root)
		}
		if err != nil {
			return err
		}
		works, keys, problems := g.databaseWorks(db)
		for _, key := range keys {
			if !g.trust.own {
				break
			}
			if err := g.keys.Add(db.Path(), key); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", cli.Text(err.Error()))
			}
		}
		err = g.run(cmd, works, problems)
		return errors.Join(err, db.Close())
	}
	return cmd
}

// databaseWorks returns what there is to do for a database, and the keys that
// are installed in it.
func (g *generator) databaseWorks(db *rpmdb.DB) (works []work, keys [][]byte, problems []error) {
	var buf []byte
	for _, r := range db.Records() {
		b, err := db.Read(r, buf)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		buf = b
		armored, err := rpmhdr.StoredKeys(b)
		if err == nil && len(armored) > 0 {
			for _, key := range armored {
				keys = append(keys, slices.Clone(key))
			}
			continue
		}
		works = append(works, work{origin: fmt.Sprintf("%s: header %d", db.Path(), r.Key), read: func(buf []byte) (found, error) {
			b, err := db.Read(r, buf)
			if err != nil {
				return found{}, err
			}
			p, err := rpmhdr.ParseStored(b)
			return found{rpm: &p}, err
		}})
	}
	return works, keys, problems
}
