package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxFile bounds a configuration file in bytes.
const maxFile = 1 << 20

// Load reads the configuration file path, and checks it and the files that it
// names. The error is an [Errors] with all that is wrong. Nothing on the host
// is touched, and no secret is kept.
func Load(path string) (*Config, error) {
	return loadFile(path, true)
}

// Peek is Load without a look at the files that the configuration names: for
// those who want to know something of a running instance, such as its socket,
// and may not read its keys.
func Peek(path string) (*Config, error) {
	return loadFile(path, false)
}

func loadFile(path string, files bool) (*Config, error) {
	b, err := read(path)
	if err != nil {
		return nil, Errors{{File: path, Msg: printable(err.Error())}}
	}
	return load(path, b, files)
}

// Parse is Load for the content of a file, without a look at the files that it
// names. Relative paths are taken from the folder of path, which need not exist.
func Parse(path string, content []byte) (*Config, error) {
	return load(path, content, false)
}

// read reads a regular file, or a pipe such as /dev/stdin, up to maxFile.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, cause(err)
	}
	return b, nil
}

// cause strips the path from a file error, since every line starts with it.
func cause(err error) error {
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) {
		return err
	}
	if errors.Is(err, syscall.EISDIR) {
		return errors.New("is a folder, not a file")
	}
	return fmt.Errorf("cannot be read: %w", pathErr.Err)
}

func load(path string, content []byte, files bool) (*Config, error) {
	p := &parser{
		decoder: &decoder{file: path},
		cfg:     Default(),
		dir:     filepath.Dir(path),
	}
	p.cfg.File = path
	if root := p.document(content); root != nil {
		p.decoder.decode(&p.raw, root, "")
		if p.raw.ok() {
			p.parse()
			p.check()
			if files {
				p.checkFiles()
			}
		}
	}
	if len(p.errs) > 0 {
		p.errs.sort()
		return nil, p.errs
	}
	p.warnings.sort()
	p.cfg.Warnings = p.warnings
	return p.cfg, nil
}

// document returns the top node of the one YAML document in content, or nil if
// there is none.
func (d *decoder) document(content []byte) *yaml.Node {
	if len(content) > maxFile {
		d.report(nil, "", "is larger than %d bytes", maxFile)
		return nil
	}
	if line, col, what := badText(content); what != "" {
		d.syntax(line, col, "%s", what)
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(content))
	if err != nil {
		d.report(nil, "", "%v", err)
		return nil
	}
	var doc yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF):
		d.syntax(1, 1, "the file is empty")
		return nil
	case err != nil:
		d.yamlError(content, err)
		return nil
	}
	var second yaml.Node
	switch err := loader.Load(&second); {
	case err == nil:
		d.syntax(second.Line, second.Column, "a second document starts here; a configuration has one")
		return nil
	case !errors.Is(err, io.EOF):
		d.yamlError(content, err)
		return nil
	}
	if len(doc.Content) != 1 || doc.Content[0].ShortTag() == "!!null" {
		d.syntax(1, 1, "the file is empty")
		return nil
	}
	return doc.Content[0]
}

// syntaxKey stands for the key in errors that keep the file from having keys.
const syntaxKey = "yaml"

func (d *decoder) syntax(line, col int, format string, args ...any) {
	d.report(&yaml.Node{Line: line, Column: col}, syntaxKey, format, args...)
}

// yamlError reports what the YAML library says.
func (d *decoder) yamlError(content []byte, err error) {
	var load *yaml.LoadError
	if !errors.As(err, &load) || load.Mark.Line == 0 {
		d.report(nil, syntaxKey, "%v", err)
		return
	}
	at, msg := load.Mark, load.Message
	switch {
	case startsWithTab(content, at.Line):
		msg = "a tab cannot indent YAML; use spaces"
	case load.ContextMark.Line > 0 && strings.Contains(msg, "end of stream"),
		load.ContextMark.Line > 0 && strings.Contains(msg, "':'"):
		// What is open began there, and is to be closed there.
		at, msg = load.ContextMark, fmt.Sprintf("%s %s", msg, load.ContextMsg)
	case load.ContextMark.Line > 0 && load.ContextMark != load.Mark:
		msg = fmt.Sprintf("%s %s that starts in line %d", msg, load.ContextMsg, load.ContextMark.Line)
	}
	d.syntax(at.Line, at.Column, "%s", msg)
}

// startsWithTab reports whether the line, counted from 1, is indented with a tab.
func startsWithTab(content []byte, line int) bool {
	for ; line > 1; line-- {
		_, rest, ok := bytes.Cut(content, []byte{'\n'})
		if !ok {
			return false
		}
		content = rest
	}
	return bytes.HasPrefix(bytes.TrimLeft(content, " "), []byte{'\t'})
}

// badText looks for what cannot be in a text file, of which the YAML library
// does not say the position.
func badText(content []byte) (line, col int, what string) {
	line, col = 1, 1
	for i := 0; i < len(content); {
		r, n := utf8.DecodeRune(content[i:])
		switch {
		case r == utf8.RuneError && n <= 1:
			return line, col, "this is not UTF-8 text"
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			return line, col, fmt.Sprintf("the control character %U cannot be in a file", r)
		case r == '\n':
			line, col = line+1, 0
		}
		i += n
		col++
	}
	return 0, 0, ""
}
