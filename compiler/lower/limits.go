package lower

import (
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/compiler/seccomp"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

var limitsFields = []string{
	"limits.processes", "limits.open_files", "limits.time", "limits.cpu", "limits.cpu_cores", "limits.gpu_devices",
	"limits.memory", "limits.num_cpus", "limits.machine_files", "limits.backend",
}

// Limits lowers bounds on resources. Without a supervisor nobody counts processes, so the default does not apply.
func Limits(u *Unit) {
	src, l := &u.Policy.Limits, &u.Program.Limits
	if !u.Policy.Program.NoSupervisor.V {
		l.Processes, l.ProcessesOrigin = src.Processes.V, u.ref(src.Processes.Origin)
	}
	u.Filter.ProcessLimit, u.Filter.ProcessOrigin = l.Processes > 0, l.ProcessesOrigin
	l.OpenFiles = src.OpenFiles.V
	if src.Time.Set {
		l.TimeMS, l.TimeOrigin = uint64(src.Time.V.Milliseconds()), u.ref(src.Time.Origin)
	}
	if src.CPU.Set && src.CPU.V < 100 { // 100 says that there is no limit
		l.CPUPercent, l.CPUOrigin = uint8(src.CPU.V), u.ref(src.CPU.Origin)
	}
	if u.Policy.Limits.Backend.V == "cgroup" && (src.Memory.Set || l.CPUPercent > 0) {
		l.Backend = ir.BackendCgroup
	}
	memory(u)
	cpuCount(u)
	machineFiles(u)
	cpuCores(u)
	gpu(u)
}

// cpuCores pins the command. Affinity alone is a suggestion: the kernel lets every process widen its own again.
func cpuCores(u *Unit) {
	src := &u.Policy.Limits.CPUCores
	if len(src.Items) == 0 {
		return
	}
	u.Program.Limits.CPUCores = sortedSet(src.Values())
	u.Filter.Deny = append(u.Filter.Deny, seccomp.Named{
		Name: "sched_setaffinity", Origin: u.ref(src.Origin), Reason: "limits.cpu_cores: the command stays on its cores",
	})
}

// gpu grants the device nodes of the selected GPUs, and tells the usual libraries which ones they are. With indices
// /dev/dri stays closed: its nodes are not numbered alike, so granting it would open the other devices.
func gpu(u *Unit) {
	src, l := &u.Policy.Limits.GPUDevices, &u.Program.Limits
	if !src.Mode.Set || src.Mode.V == "none" {
		return
	}
	var (
		ref    = u.derived(src.Mode.Origin)
		device = (abi.FSReadFile | abi.FSWriteFile | abi.FSIoctlDev) & u.Program.Landlock.Handled.FS
		lookUp = abi.FSReadFile | abi.FSReadDir
		add    = func(path string, access uint64, kind ir.PathKind) {
			addPath(u, ir.PathRule{Path: path, Access: access, Kind: kind, Origin: ref})
		}
	)
	for _, path := range []string{"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"} {
		add(path, device, ir.PathOptional)
	}
	for _, path := range []string{"/proc/driver/nvidia", "/sys/bus/pci/devices", "/sys/module/nvidia"} {
		add(path, lookUp, ir.PathOptional)
	}
	if src.Mode.V == "all" {
		l.GPU.Mode = ir.GPUAll
		add("/dev/nvidia", device, ir.PathNumbered)
		add("/dev/dri", device|lookUp, ir.PathOptional)
		return
	}
	l.GPU.Mode, l.GPU.Devices = ir.GPUIndices, sortedSet(src.Indices.Values())
	var indices []string
	for _, n := range l.GPU.Devices {
		indices = append(indices, strconv.Itoa(int(n)))
		add("/dev/nvidia"+strconv.Itoa(int(n)), device, ir.PathOptional)
	}
	for _, name := range []string{"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"} {
		setDefaultEnv(u, ir.EnvVar{Name: name, Value: strings.Join(indices, ","), Origin: ref})
	}
}
