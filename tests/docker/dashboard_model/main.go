// Reads a dashboard by the Go types that Grafana publishes for its JSON model, and refuses what these do not
// know or demand. usage: dashboardmodel FILE
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func fail(err error) {
	var faults cog.BuildErrors
	if err == nil || (errors.As(err, &faults) && len(faults) == 0) {
		return
	}
	fmt.Println(err)
	os.Exit(1)
}

func main() {
	plugins.RegisterDefaultPlugins()
	raw, err := os.ReadFile(os.Args[1])
	fail(err)
	model := dashboard.Dashboard{}
	fail(model.UnmarshalJSONStrict(raw))
	fail(model.Validate())
	fmt.Println("valid:", len(model.Panels), "panels and rows")
}
