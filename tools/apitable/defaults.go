package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strconv"
	"strings"
)

// ownDefaults are the groups that bring their own server; it serves all its versions, and neither had an alpha
// one in the minors read here.
var ownDefaults = []string{"apiextensions.k8s.io", "apiregistration.k8s.io"}

// defaults is what DefaultAPIResourceConfigSource switches on and off. A resource's own line outranks its version's.
type defaults struct {
	versions  map[gvr]bool // with no resource
	resources map[gvr]bool
}

// on reports whether a resource is served when nobody says anything about it. Feature gates are not looked at.
func (d defaults) on(r gvr) (bool, error) {
	if on, ok := d.resources[r]; ok {
		return on, nil
	}
	if on, ok := d.versions[gvr{group: r.group, version: r.version}]; ok {
		return on, nil
	}
	for _, own := range ownDefaults {
		if r.group == own {
			return true, nil
		}
	}
	return false, fmt.Errorf("nothing says whether %s/%s %s is on by default", r.group, r.version, r.resource)
}

// source is a Go file with what its import names and variables stand for.
type source struct {
	groups  map[string]string // folder of k8s.io/api or pkg/apis to group
	imports map[string]string
	vars    map[string]*ast.CompositeLit
}

func readDefaults(mod module) (defaults, error) {
	d := defaults{versions: map[gvr]bool{}, resources: map[gvr]bool{}}
	name := "pkg/controlplane/instance.go"
	if !mod.has(name) {
		name = "pkg/master/master.go"
	}
	data, err := mod.read(name)
	if err != nil {
		return d, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, data, 0)
	if err != nil {
		return d, err
	}
	src := source{imports: map[string]string{}, vars: map[string]*ast.CompositeLit{}}
	if src.groups, err = groupNames(mod, "pkg/apis"); err != nil {
		return d, err
	}
	src.index(file)
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || (fn.Name.Name != "DefaultAPIResourceConfigSource" && fn.Name.Name != "DefaultGenericAPIResourceConfigSource") {
			continue
		}
		if err := src.apply(fn, d); err != nil {
			return d, fmt.Errorf("%s: %s: %w", name, fn.Name.Name, err)
		}
	}
	if len(d.versions) < 20 {
		return d, fmt.Errorf("%s: only %d versions were found: the form is not the one known", name, len(d.versions))
	}
	return d, nil
}

func (s source) index(file *ast.File) {
	for _, i := range file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		name := path.Base(p)
		if i.Name != nil {
			name = i.Name.Name
		}
		s.imports[name] = p
	}
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range gen.Specs {
			v, ok := spec.(*ast.ValueSpec)
			if !ok || len(v.Values) != 1 {
				continue
			}
			if lit, ok := v.Values[0].(*ast.CompositeLit); ok {
				s.vars[v.Names[0].Name] = lit
			}
		}
	}
}

// apply follows the calls of a function that switch versions and resources on and off.
func (s source) apply(fn *ast.FuncDecl, d defaults) error {
	var err error
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || err != nil {
			return err == nil
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !(strings.HasPrefix(sel.Sel.Name, "Enable") || strings.HasPrefix(sel.Sel.Name, "Disable")) {
			return true
		}
		into := d.versions
		switch sel.Sel.Name {
		case "EnableVersions", "DisableVersions":
		case "EnableResources", "DisableResources":
			into = d.resources
		default:
			err = fmt.Errorf("%s is not known", sel.Sel.Name)
			return false
		}
		args := call.Args
		if call.Ellipsis.IsValid() {
			name, ok := args[0].(*ast.Ident)
			if !ok || s.vars[name.Name] == nil {
				err = fmt.Errorf("an argument of %s is no list of this file", sel.Sel.Name)
				return false
			}
			args = s.vars[name.Name].Elts
		}
		for _, a := range args {
			var r gvr
			if r, err = s.resolve(a); err != nil {
				return false
			}
			into[r] = strings.HasPrefix(sel.Sel.Name, "Enable")
		}
		return false
	})
	return err
}

// resolve reads X.SchemeGroupVersion, and X.SchemeGroupVersion.WithResource("name").
func (s source) resolve(e ast.Expr) (gvr, error) {
	var resource string
	if call, ok := e.(*ast.CallExpr); ok {
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || sel.Sel.Name != "WithResource" || len(call.Args) != 1 {
			return gvr{}, fmt.Errorf("a call other than WithResource names a resource")
		}
		lit, ok := call.Args[0].(*ast.BasicLit)
		if !ok {
			return gvr{}, fmt.Errorf("a resource is no literal")
		}
		resource, _ = strconv.Unquote(lit.Value)
		e = sel.X
	}
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "SchemeGroupVersion" {
		return gvr{}, fmt.Errorf("a version is not written as SchemeGroupVersion")
	}
	name, ok := sel.X.(*ast.Ident)
	if !ok {
		return gvr{}, fmt.Errorf("a version is of no package")
	}
	folder, version := path.Split(s.imports[name.Name])
	folder = strings.TrimPrefix(strings.TrimPrefix(folder, "k8s.io/api/"), "k8s.io/kubernetes/pkg/apis/")
	group, ok := s.groups[strings.TrimSuffix(folder, "/")]
	if !ok {
		return gvr{}, fmt.Errorf("package %s (%s) has no group", name.Name, s.imports[name.Name])
	}
	return gvr{group, version, resource}, nil
}

// groupNames reads the constant GroupName of the register.go of each folder below dir. The folder "core" has the
// group of the empty name.
func groupNames(mod module, dir string) (map[string]string, error) {
	out := map[string]string{}
	err := mod.walk(dir, "/register.go", func(name string, data []byte) error {
		file, err := parser.ParseFile(token.NewFileSet(), name, data, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder := strings.TrimPrefix(path.Dir(name), dir+"/")
		for _, decl := range file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.CONST {
				continue
			}
			for _, spec := range gen.Specs {
				v := spec.(*ast.ValueSpec)
				if lit, ok := firstLiteral(v); ok && v.Names[0].Name == "GroupName" {
					out[folder] = lit
				}
			}
		}
		return nil
	})
	return out, err
}

func firstLiteral(v *ast.ValueSpec) (string, bool) {
	if len(v.Values) != 1 {
		return "", false
	}
	lit, ok := v.Values[0].(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}
