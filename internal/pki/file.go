package pki

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxFile bounds a certificate or key file in bytes. A CA bundle of a whole
// distribution has about 250 KiB.
const maxFile = 1 << 20

// readFile reads a regular file of at most maxFile bytes. A private one must
// not be accessible to group or others.
func readFile(path string, private bool) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO without a writer must not hang.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The mode is that of the open file, so that it is the mode of what is read.
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if perm := st.Mode().Perm(); private && perm&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o, so that others than its owner have access; run: chmod 600 %[1]s", path, perm)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return b, nil
}

// output is a file to be made.
type output struct {
	path string
	mode fs.FileMode
	data []byte
}

// writeFiles makes all files or none. The folder is made if it is missing. A
// file that exists already is an error (fs.ErrExist) and stays as it is.
func writeFiles(files ...output) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for _, path := range made {
				err = errors.Join(err, os.Remove(path))
			}
		}
	}()
	// Looking first gives the answer before any work; the link in writeFile
	// decides.
	for _, f := range files {
		if _, err := os.Lstat(f.path); err == nil {
			return fmt.Errorf("%s %w; it is never overwritten: remove it first if it is not needed", f.path, errExists)
		}
	}
	for _, f := range files {
		if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
			return err
		}
		if err := writeFile(f); err != nil {
			return err
		}
		made = append(made, f.path)
	}
	return nil
}

// errExists reads well in a sentence and is fs.ErrExist.
var errExists = existsError{}

type existsError struct{}

func (existsError) Error() string        { return "exists already" }
func (existsError) Is(target error) bool { return target == fs.ErrExist }

// writeFile makes one file under a temporary name, and gives it its name when
// its content is on disk. The name is made by link rather than rename, which
// would replace a file that appeared meanwhile.
func writeFile(f output) (err error) {
	// CreateTemp makes it with mode 0600, so that a key is never open to others.
	tmp, err := os.CreateTemp(filepath.Dir(f.path), "."+filepath.Base(f.path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, os.Remove(tmp.Name()))
	}()
	_, err = tmp.Write(f.data)
	if err == nil {
		err = tmp.Chmod(f.mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), f.path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s %w; it is never overwritten: remove it first if it is not needed", f.path, errExists)
		}
		return err
	}
	return nil
}
