package oracle

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/dynamic-resource-allocation/resourceslice/tracker"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	schedulercache "k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/dynamicresources"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodevolumelimits"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
	"k8s.io/kubernetes/pkg/scheduler/util/assumecache"
)

// profile is a profile of kube-scheduler without a cluster behind it.
type profile struct {
	framework framework.Framework
	informers informers.SharedInformerFactory
	lister    *lister
	nominator *nominator
	// The same instances that the framework runs, in the profile's order.
	plugins []fwk.Plugin
}

func newProfile(ctx context.Context, configured *config.KubeSchedulerProfile) (*profile, error) {
	metrics.Register()
	p := &profile{
		informers: informers.NewSharedInformerFactory(nil, 0),
		lister:    &lister{schedulercache.NewEmptySnapshot()},
		nominator: &nominator{},
	}
	made := map[string]fwk.Plugin{}
	registry := remember(plugins.NewInTreeRegistry(), made)
	draManager, err := p.draManager(ctx)
	if err != nil {
		return nil, err
	}
	p.framework, err = frameworkruntime.NewFramework(ctx, registry, configured,
		frameworkruntime.WithInformerFactory(p.informers),
		frameworkruntime.WithSnapshotSharedLister(p.lister),
		frameworkruntime.WithMutableSnapshotLister(p.lister),
		frameworkruntime.WithPodNominator(p.nominator),
		frameworkruntime.WithSharedDRAManager(draManager),
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

// draManager knows no claims, slices and classes; without it plugins refuse to
// be made.
func (p *profile) draManager(ctx context.Context) (fwk.SharedDRAManager, error) {
	claims := p.informers.Resource().V1().ResourceClaims().Informer()
	slices, err := tracker.StartTracker(ctx, tracker.Options{SliceInformer: p.informers.Resource().V1().ResourceSlices()})
	if err != nil {
		return nil, err
	}
	cache := assumecache.NewAssumeCache(klog.FromContext(ctx), claims, "ResourceClaim", "", nil)
	return dynamicresources.NewDRAManager(ctx, cache, slices, p.informers), nil
}
