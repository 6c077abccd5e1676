// Command coredns is CoreDNS with the plugins that cluster DNS needs and no
// others: the cloud providers' clients would be most of the build.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
)

// directives is the order in which the plugins see a query. It is upstream's
// order, cut to the plugins compiled in: caddy refuses a directive that is
// listed but missing only when a Corefile uses it.
var directives = []string{
	"metadata", "reload", "bind", "health", "ready", "prometheus",
	"errors", "log", "loadbalance", "cache", "hosts", "kubernetes", "loop",
	"forward",
}

func init() { dnsserver.Directives = directives }

func main() { coremain.Run() }
