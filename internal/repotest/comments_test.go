package repotest

import (
	"go/ast"
	"strings"
	"testing"
)

func TestEveryPackageHasOneComment(t *testing.T) {
	_, files := source(t)
	comments := map[string][]string{}
	for _, f := range files {
		if f.test {
			continue
		}
		key := f.dir + " " + f.Name.Name
		if comments[key] == nil {
			comments[key] = []string{}
		}
		if f.Doc != nil {
			comments[key] = append(comments[key], f.path)
			if want := commentStart(f); !strings.HasPrefix(f.Doc.Text(), want) {
				t.Errorf("%s: the package comment does not start with %q", f.path, want)
			}
		}
	}
	for key, where := range comments {
		if len(where) != 1 {
			t.Errorf("package %s has %d package comments %v, want 1", key, len(where), where)
		}
	}
}

// commentStart is how godoc expects the comment of f's package to begin.
func commentStart(f file) string {
	if f.Name.Name == "main" {
		name := f.dir[strings.LastIndexByte(f.dir, '/')+1:]
		return "Command " + name
	}
	return "Package " + f.Name.Name
}

func TestEveryExportedNameIsDocumented(t *testing.T) {
	fset, files := source(t)
	for _, f := range files {
		if f.test {
			continue
		}
		for _, decl := range f.Decls {
			for _, name := range undocumented(decl) {
				t.Errorf("%s: %s is exported and has no comment", fset.Position(name.Pos()), name.Name)
			}
		}
	}
}

// undocumented lists the exported names of a declaration that lack a comment:
// functions, methods of exported types, types, constants and variables. One
// comment above a group speaks for the constants and variables of the group,
// one above or beside a line for every name on the line. Fields may be
// explained by the comment of their type.
func undocumented(decl ast.Decl) (names []*ast.Ident) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && receiverExported(d) {
			names = append(names, d.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && s.Doc == nil && (d.Doc == nil || len(d.Specs) > 1) {
					names = append(names, s.Name)
				}
			case *ast.ValueSpec:
				if s.Doc != nil || s.Comment != nil || d.Doc != nil {
					continue
				}
				for _, name := range s.Names {
					if name.IsExported() {
						names = append(names, name)
					}
				}
			}
		}
	}
	return names
}

// receiverExported reports whether d is a function, or a method of an exported
// type: nobody reads the documentation of other methods.
func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	expr := d.Recv.List[0].Type
	for {
		switch e := expr.(type) {
		case *ast.StarExpr:
			expr = e.X
		case *ast.IndexExpr:
			expr = e.X
		case *ast.IndexListExpr:
			expr = e.X
		case *ast.Ident:
			return e.IsExported()
		default:
			return true
		}
	}
}
