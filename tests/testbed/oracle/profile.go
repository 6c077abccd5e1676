package oracle

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	schedulercache "k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodevolumelimits"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
)

// profile is a profile of kube-scheduler without a cluster behind it.
type profile struct {
	framework framework.Framework
	informers informers.SharedInformerFactory
	lister    *lister
	nominator *nominator
	devices   *devices
	// The same instances that the framework runs, in the profile's order.
	plugins []fwk.Plugin
}

func newProfile(ctx context.Context, configured *config.KubeSchedulerProfile) (*profile, error) {
	metrics.Register()
	p := &profile{
		informers: informers.NewSharedInformerFactory(nil, 0),
		lister:    &lister{schedulercache.NewEmptySnapshot()},
		nominator: &nominator{},
		devices:   &devices{of: &Case{}},
	}
	made := map[string]fwk.Plugin{}
	registry := remember(plugins.NewInTreeRegistry(), made)
	var err error
	p.framework, err = frameworkruntime.NewFramework(ctx, registry, configured,
		frameworkruntime.WithInformerFactory(p.informers),
		frameworkruntime.WithSnapshotSharedLister(p.lister),
		frameworkruntime.WithMutableSnapshotLister(p.lister),
		frameworkruntime.WithPodNominator(p.nominator),
		frameworkruntime.WithSharedDRAManager(p.devices),
		frameworkruntime.WithSharedCSIManager(nodevolumelimits.NewCSIManager(p.informers.Storage().V1().CSINodes().Lister())),
		frameworkruntime.WithParallelism(1),
		frameworkruntime.WithPodGroupManager(schedulercache.New(ctx, nil, false, false)),
	)
	if err != nil {
		return nil, err
	}
	for _, enabled := range configured.Plugins.MultiPoint.Enabled {
		plugin, ok := made[enabled.Name]
		if !ok {
			return nil, fmt.Errorf("plugin %s was not made", enabled.Name)
		}
		p.plugins = append(p.plugins, plugin)
	}
	return p, nil
}

// remember keeps what the registry makes, because the framework does not give
// its plugins out.
func remember(registry frameworkruntime.Registry, made map[string]fwk.Plugin) frameworkruntime.Registry {
	all := frameworkruntime.Registry{}
	for name, factory := range registry {
		all[name] = func(ctx context.Context, args runtime.Object, handle fwk.Handle) (fwk.Plugin, error) {
			plugin, err := factory(ctx, args, handle)
			made[name] = plugin
			return plugin, err
		}
	}
	return all
}
