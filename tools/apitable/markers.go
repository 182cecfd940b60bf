package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strconv"
)

// gvk names a kind.
type gvk struct {
	Group   string `json:"group"`
	Version string `json:"version"`
	Kind    string `json:"kind"`
}

// marker is what the authors of a type say of its life. Zero means that they say nothing.
type marker struct {
	deprecated, removed int
	replacement         *gvk
}

// markers are those of a version of k8s.io/api.
type markers struct {
	module, sum string
	of          map[gvk]marker
}

func readMarkers(mod module) (markers, error) {
	m := markers{module: mod.Name, sum: mod.Sum, of: map[gvk]marker{}}
	groups, err := groupNames(module{root: mod.root}, ".")
	if err != nil {
		return m, err
	}
	err = mod.walk(".", "/zz_generated.prerelease-lifecycle.go", func(name string, data []byte) error {
		dir := path.Dir(name)
		group, ok := groups[dir]
		if !ok {
			return fmt.Errorf("%s: the package has no GroupName", name)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, data, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if err := m.add(gvk{Group: group, Version: path.Base(dir)}, fn); err != nil {
				return fmt.Errorf("%s: %s: %w", name, fn.Name.Name, err)
			}
		}
		return nil
	})
	if err == nil && len(m.of) < 50 {
		err = fmt.Errorf("only %d types have markers: the form is not the one known", len(m.of))
	}
	return m, err
}

// add takes in one method.
func (m markers) add(of gvk, fn *ast.FuncDecl) error {
	if fn.Recv == nil || len(fn.Recv.List) != 1 || len(fn.Body.List) != 1 {
		return fmt.Errorf("not a method of one statement")
	}
	star, ok := fn.Recv.List[0].Type.(*ast.StarExpr)
	ret, returns := fn.Body.List[0].(*ast.ReturnStmt)
	if !ok || !returns {
		return fmt.Errorf("not a method of a pointer that returns")
	}
	of.Kind = star.X.(*ast.Ident).Name
	mark := m.of[of]
	var err error
	switch fn.Name.Name {
	case "APILifecycleIntroduced":
	case "APILifecycleDeprecated":
		mark.deprecated, err = minorOf(ret)
	case "APILifecycleRemoved":
		mark.removed, err = minorOf(ret)
	case "APILifecycleReplacement":
		mark.replacement, err = kindIn(ret)
	default:
		err = fmt.Errorf("no marker of this name is known")
	}
	m.of[of] = mark
	return err
}

// minorOf reads `return 1, 22`.
func minorOf(ret *ast.ReturnStmt) (int, error) {
	if len(ret.Results) != 2 {
		return 0, fmt.Errorf("want two numbers")
	}
	major, ok1 := ret.Results[0].(*ast.BasicLit)
	minor, ok2 := ret.Results[1].(*ast.BasicLit)
	if !ok1 || !ok2 || major.Value != "1" {
		return 0, fmt.Errorf("want 1 and a minor")
	}
	return strconv.Atoi(minor.Value)
}

// kindIn reads `return schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}`.
func kindIn(ret *ast.ReturnStmt) (*gvk, error) {
	if len(ret.Results) != 1 {
		return nil, fmt.Errorf("want one kind")
	}
	lit, ok := ret.Results[0].(*ast.CompositeLit)
	if !ok {
		return nil, fmt.Errorf("want a literal")
	}
	var out gvk
	for _, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return nil, fmt.Errorf("want named fields")
		}
		value, ok := kv.Value.(*ast.BasicLit)
		if !ok {
			return nil, fmt.Errorf("want literals in fields")
		}
		s, err := strconv.Unquote(value.Value)
		if err != nil {
			return nil, err
		}
		switch kv.Key.(*ast.Ident).Name {
		case "Group":
			out.Group = s
		case "Version":
			out.Version = s
		case "Kind":
			out.Kind = s
		}
	}
	return &out, nil
}
