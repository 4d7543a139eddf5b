package kind

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// Columns reads a line of column names as a table shows them: "Name Ready:integer IP*". A type follows a colon (string
// if none), a star marks what only wide output shows, and an underscore stands for a space. The first is the name.
func Columns(line string) []metav1.TableColumnDefinition {
	words := strings.Fields(line)
	cols := make([]metav1.TableColumnDefinition, len(words))
	for i, w := range words {
		c := &cols[i]
		c.Type = "string"
		if strings.HasSuffix(w, "*") {
			c.Priority, w = 1, strings.TrimSuffix(w, "*")
		}
		name, typ, ok := strings.Cut(w, ":")
		if ok {
			c.Type = typ
		}
		c.Name = strings.ReplaceAll(name, "_", " ")
		switch c.Name {
		case "Name":
			c.Format, c.Description = "name", metav1.ObjectMeta{}.SwaggerDoc()["name"]
		case "Age":
			c.Description = metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]
		}
	}
	return cols
}

// Describe gives columns their descriptions: names and texts in turn.
func Describe(cols []metav1.TableColumnDefinition, texts ...string) []metav1.TableColumnDefinition {
	for i := 0; i+1 < len(texts); i += 2 {
		for n := range cols {
			if cols[n].Name == texts[i] {
				cols[n].Description = texts[i+1]
			}
		}
	}
	return cols
}

// Age is how a table shows how long ago something was.
func Age(t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(t.Time))
}

// None is what a table shows for an empty value.
func None(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}
