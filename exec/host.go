package exec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/exec/helper"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// handledHere reduces the ruleset to what this host's Landlock offers. Rights that are missing and that the policy did
// not declare `degrade` are returned as problems, each with its protection's name.
func handledHere(l *ir.Landlock, hostABI int) (handled ir.Rights, problems []string) {
	fs, net, scoped := abi.Supported(hostABI)
	missing := ir.Rights{FS: l.Handled.FS &^ fs, Net: l.Handled.Net &^ net, Scoped: l.Handled.Scoped &^ scoped}
	strict := ir.Rights{FS: missing.FS &^ l.Degrade.FS, Net: missing.Net &^ l.Degrade.Net, Scoped: missing.Scoped &^ l.Degrade.Scoped}
	if names := rightNames(strict); len(names) > 0 {
		problems = append(problems, fmt.Sprintf("Landlock cannot handle %s: needs ABI %d, this kernel has %s",
			strings.Join(names, ", "), abiFor(strict), abiName(hostABI)))
	}
	if hostABI == 0 {
		problems = []string{kernel.ErrNoLandlock.Error()}
	}
	return ir.Rights{FS: l.Handled.FS & fs, Net: l.Handled.Net & net, Scoped: l.Handled.Scoped & scoped}, problems
}

func rightNames(r ir.Rights) []string {
	return slices.Concat(abi.FSRightNames(r.FS), abi.NetRightNames(r.Net), abi.ScopeNames(r.Scoped))
}

// abiFor returns the first ABI that has all of the rights.
func abiFor(r ir.Rights) int {
	for v := 1; v <= abi.LatestLandlock; v++ {
		fs, net, scoped := abi.Supported(v)
		if r.FS&^fs|r.Net&^net|r.Scoped&^scoped == 0 {
			return v
		}
	}
	return abi.LatestLandlock + 1
}

func abiName(v int) string {
	if v == 0 {
		return "none"
	}
	return fmt.Sprintf("ABI %d", v)
}

// unmet lists the program's requirements that this host does not meet, each with the policy fields that ask for it.
func unmet(p *ir.Program, h kernel.Host) []string {
	var problems []string
	for _, r := range p.Requires {
		ok, has, why := true, "", ""
		switch r.Feature {
		case ir.FeatureLandlock:
			ok, has = h.LandlockABI >= int(r.Min), abiName(h.LandlockABI)
		case ir.FeatureSeccompFilter:
			ok = h.SeccompFilter
		case ir.FeatureSeccompNotify:
			ok = h.SeccompNotify
		case ir.FeaturePtrace:
			ok, has = h.Ptrace, h.PtraceReason
		case ir.FeatureCgroupMemory:
			ok, why = h.CgroupMemory, h.CgroupMemoryReason
		case ir.FeatureCgroupCPU:
			ok, why = h.CgroupCPU, h.CgroupCPUReason
		case ir.FeatureNamespaces:
			ok, why = h.Namespaces, h.NamespacesReason
		case ir.FeatureUserNamespace:
			ok, why = h.UserNamespaces, h.UserNSReason
		case ir.FeatureOverlay: // proven by the mount itself
		default:
			ok, has = false, "unknown to this build"
		}
		if ok {
			continue
		}
		need := r.Feature.String()
		if r.Min > 0 {
			need = fmt.Sprintf("%s ABI %d", need, r.Min)
		}
		line := "needs " + need
		if has != "" {
			line += ", this host has " + has
		}
		line += " (for " + strings.Join(r.Fields, ", ") + ")"
		if why != "" {
			line += ": " + why
		}
		problems = append(problems, line)
	}
	if line := noProc(p, h); line != "" {
		problems = append(problems, line)
	}
	if changesImages(p) {
		if err := kernel.CanOverwriteCode(); err != nil {
			problems = append(problems, "determinism: "+err.Error())
		}
	}
	return problems
}

// noProc says why the /proc that the policy insists on cannot be had where namespaces can. "auto" does without.
func noProc(p *ir.Program, h kernel.Host) string {
	if !p.Namespaced() || p.View.Proc != ir.ProcPrivate {
		return ""
	}
	ok, why, can := h.FreshProc, h.FreshProcReason, h.Namespaces
	if p.View.MapIDs {
		ok, why, can = h.MappedProc, h.MappedProcReason, h.UserNamespaces
	}
	if ok || !can { // without namespaces there is a line about them already
		return ""
	}
	line := "needs a new /proc (for filesystem.proc)"
	if why != "" {
		line += ": " + why
	}
	return line
}

// Missing lists everything that the program requires and this host does not offer, each with the policy field.
func Missing(p *ir.Program, h kernel.Host) []string {
	_, lacking := handledHere(&p.Landlock, h.LandlockABI)
	lacking = append(unmet(p, h), lacking...)
	if field := needsHelper(p); field != "" {
		program, err := helper.Find("")
		if err != nil {
			return append(lacking, field+": "+err.Error())
		}
		program.Close()
	}
	return lacking
}
