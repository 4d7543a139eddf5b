package policystatus

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/google/cel-go/cel"
)

//go:embed declared.txt
var declaredText string

// declared reads declared.txt: what functions expressions may call, and the types that no schema tells of.
func declared() (functions []cel.EnvOption, objects map[string]fields) {
	overloads := map[string][]cel.FunctionOpt{}
	objects = map[string]fields{}
	var within fields
	for line := range strings.Lines(declaredText) {
		line = strings.TrimRight(line, "\n")
		switch field, ok := strings.CutPrefix(line, "\t"); {
		case ok:
			name, kind, _ := strings.Cut(field, " ")
			within[name] = typeNamed(kind)
		case strings.HasPrefix(line, "type "):
			within = fields{}
			objects[strings.TrimPrefix(line, "type ")] = within
		case line != "" && line[0] != '#':
			name, option := function(line)
			overloads[name] = append(overloads[name], option)
		}
	}
	for name, options := range overloads {
		functions = append(functions, cel.Function(name, options...))
	}
	return functions, objects
}

// function reads one line; the line is also what CEL tells the overload by.
func function(line string) (string, cel.FunctionOpt) {
	var receiver string
	signature := line
	if line[0] == '(' {
		receiver, signature, _ = strings.Cut(line[1:], ").")
	}
	name, rest, _ := strings.Cut(signature, "(")
	in, out, _ := strings.Cut(rest, ") ")
	var args []*cel.Type
	if receiver != "" {
		args = append(args, typeNamed(receiver))
	}
	for arg := range strings.SplitSeq(in, ", ") {
		if arg != "" {
			args = append(args, typeNamed(arg))
		}
	}
	if receiver != "" {
		return name, cel.MemberOverload(line, args, typeNamed(out))
	}
	return name, cel.Overload(line, args, typeNamed(out))
}

var simple = map[string]*cel.Type{
	"bool": cel.BoolType, "bytes": cel.BytesType, "double": cel.DoubleType, "duration": cel.DurationType, "dyn": cel.DynType, "int": cel.IntType,
	"string": cel.StringType, "timestamp": cel.TimestampType, "uint": cel.UintType, "A": cel.TypeParamType("A"),
	"net.IP": cel.OpaqueType("net.IP"), "net.CIDR": cel.OpaqueType("net.CIDR"),
}

// typeNamed reads a type as declared.txt writes it; whatever has no other meaning is an object's.
func typeNamed(text string) *cel.Type {
	if t, ok := simple[text]; ok {
		return t
	}
	of, inner, ok := strings.Cut(strings.TrimSuffix(text, ")"), "(")
	if !ok {
		return cel.ObjectType(text)
	}
	switch of {
	case "list":
		return cel.ListType(typeNamed(inner))
	case "optional_type":
		return cel.OptionalType(typeNamed(inner))
	case "map":
		key, value, _ := strings.Cut(inner, ", ")
		return cel.MapType(typeNamed(key), typeNamed(value))
	}
	panic(fmt.Sprintf("declared.txt: there is no type %q", text))
}
