package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	kubeletvalidation "k8s.io/kubernetes/pkg/kubelet/apis/config/validation"
	"k8s.io/kubernetes/pkg/kubelet/cadvisor"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	"k8s.io/kubernetes/pkg/kubelet/eviction"
	"k8s.io/kubernetes/pkg/kubelet/kubeletconfig/configfiles"
	utilfs "k8s.io/kubernetes/pkg/util/filesystem"
)

// NewKubeletCommand is upstream's kubelet with --machine-* flags. It takes
// upstream's flags for wiring (--kubeconfig, --root-dir, --node-ip, ...) and
// the KubeletConfiguration by --config only, not by the deprecated flags.
func NewKubeletCommand() *cobra.Command {
	flags := options.NewKubeletFlags()
	var machine Machine
	command := &cobra.Command{
		Use:          "node-kubelet",
		Short:        "The kubelet, on a machine as described by --machine-*",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			return run(genericapiserver.SetupSignalContext(), flags, machine)
		},
	}
	set := command.Flags()
	set.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	flags.AddFlags(set)
	set.IntVar(&machine.CPUs, "machine-cpus", 0, "logical CPUs of the machine")
	set.Uint64Var(&machine.MemoryBytes, "machine-memory", 0, "memory of the machine in bytes")
	set.IntVar(&machine.NUMANodes, "machine-numa-nodes", 1, "NUMA nodes of the machine")
	return command
}

// run does what upstream's command does with its flags parsed, and puts the
// described machine in the place of the found one.
func run(ctx context.Context, flags *options.KubeletFlags, machine Machine) error {
	machine.Name = flags.HostnameOverride
	if err := errors.Join(machine.Validate(), options.ValidateKubeletFlags(flags)); err != nil {
		return err
	}
	config, err := loadConfig(ctx, flags.KubeletConfigFile)
	if err != nil {
		return err
	}
	gates := utilfeature.DefaultMutableFeatureGate
	if err := gates.SetFromMap(config.FeatureGates); err != nil {
		return fmt.Errorf("feature gates: %w", err)
	}
	logs.InitLogs()
	if err := logsapi.ValidateAndApplyAsField(&config.Logging, gates, field.NewPath("logging")); err != nil {
		return fmt.Errorf("logging: %w", err)
	}
	if err := kubeletvalidation.ValidateKubeletConfiguration(config, gates); err != nil {
		return fmt.Errorf("%s: %w", flags.KubeletConfigFile, err)
	}
	server := &options.KubeletServer{KubeletFlags: *flags, KubeletConfiguration: *config}
	dependencies, err := app.UnsecuredDependencies(ctx, server, gates)
	if err != nil {
		return err
	}
	found, err := findMachine(ctx, server)
	if err != nil {
		return fmt.Errorf("cAdvisor: %w", err)
	}
	dependencies.CAdvisorInterface = described{found, machine}
	return app.Run(ctx, server, dependencies, gates)
}

func loadConfig(ctx context.Context, name string) (*kubeletconfig.KubeletConfiguration, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	loader, err := configfiles.NewFsLoader(&utilfs.DefaultFs{}, path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	config, err := loader.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if config.EvictionHard == nil {
		config.EvictionHard = eviction.DefaultEvictionHard
	}
	return config, nil
}

// findMachine makes the cAdvisor that the kubelet would make for itself.
func findMachine(ctx context.Context, server *options.KubeletServer) (cadvisor.Interface, error) {
	endpoint := server.ContainerRuntimeEndpoint
	roots := []string{cm.NodeAllocatableRoot(server.CgroupRoot, server.CgroupsPerQOS, server.CgroupDriver)}
	return cadvisor.New(klog.FromContext(ctx), cadvisor.NewImageFsInfoProvider(endpoint), server.RootDirectory, roots,
		cadvisor.UsingLegacyCadvisorStats(endpoint), server.LocalStorageCapacityIsolation, false)
}
