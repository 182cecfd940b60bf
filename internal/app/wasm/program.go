package wasm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/wasm/keyvalue"
	"github.com/skerry-dev/skerry/internal/app/wasm/module"
	"github.com/skerry-dev/skerry/internal/app/wasm/outbound"
)

// program is a release's module with all that its guests share.
type program struct {
	rt     *Runtime
	spec   appsite.Spec
	config app.WasmConfig
	limits app.WasmLimits
	// env is what bundle and site declare, "NAME=value", sorted.
	env            []string
	stdout, stderr io.Writer
	mounts         mounts
	module         *module.Module
	digest         string
	// saysReady is whether the module imports the function by which it says that it is prepared.
	saysReady bool
	store     *keyvalue.Store // nil without key-value storage
	outbound  *outbound.Client
	metrics   *metrics

	// Filled in by compile.
	wazero   wazero.Runtime
	compiled wazero.CompiledModule

	// ctx ends when no guest may run any more; guests waits for all of them.
	ctx    context.Context
	cancel context.CancelFunc
	guests sync.WaitGroup
}

// newProgram reads and checks what is declared. The caller closes the program.
func (r *Runtime) newProgram(spec appsite.Spec) (_ *program, err error) {
	if spec.Config.Wasm == nil {
		return nil, fmt.Errorf("config.wasm must be set: %w", ErrSpec)
	}
	p := &program{rt: r, spec: spec, config: *spec.Config.Wasm, metrics: r.metrics, stdout: &lockedWriter{w: spec.Stdout}, stderr: &lockedWriter{w: spec.Stderr}}
	p.limits = p.config.Limits.WithDefaults()
	p.ctx, p.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := p.readModule(); err != nil {
		return nil, err
	}
	if err := p.openMounts(); err != nil {
		return nil, err
	}
	if p.outbound, err = outbound.New(p.config.Outbound); err != nil {
		return nil, fmt.Errorf("wasm.outbound: %w: %w", err, ErrSpec)
	}
	if k := p.config.KeyValue; k != nil {
		bounds := k.WithDefaults()
		p.store, err = r.stores.Open(filepath.Join(spec.DataDirs[app.KeyValueDir], "kv.db"), keyvalue.Bounds{Keys: bounds.Keys, Bytes: bounds.Bytes})
		if err != nil {
			return nil, fmt.Errorf("key-value storage: %w", err)
		}
	}
	return p, nil
}

func (p *program) readModule() error {
	if !app.LocalPath(p.config.Module) {
		return fmt.Errorf("wasm.module: %q is not a path inside the bundle: %w", p.config.Module, ErrSpec)
	}
	root, err := os.OpenRoot(p.spec.Dir)
	if err != nil {
		return fmt.Errorf("bundle: %w: %w", err, ErrSpec)
	}
	defer root.Close()
	f, err := root.Open(p.config.Module)
	if err != nil {
		return fmt.Errorf("wasm.module: %w: %w", err, ErrSpec)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, module.MaxBytes+1))
	if err != nil {
		return fmt.Errorf("wasm.module: %w: %w", err, ErrSpec)
	}
	if p.module, err = module.Harden(data); err != nil {
		return fmt.Errorf("%s: %w: %w", p.config.Module, err, ErrSpec)
	}
	for _, imp := range p.module.Imports {
		if imp.Module != wasi_snapshot_preview1.ModuleName && imp.Module != hostModule {
			return fmt.Errorf("%s imports %s.%s; a site has the modules %s and %s: %w", p.config.Module, imp.Module, imp.Name,
				wasi_snapshot_preview1.ModuleName, hostModule, ErrSpec)
		}
	}
	if least := int64(p.module.MemoryPages) * pageBytes; least > p.limits.MemoryBytes {
		return fmt.Errorf("%s begins with %d bytes of memory, wasm.limits.memoryBytes allows %d: %w", p.config.Module, least, p.limits.MemoryBytes, ErrSpec)
	}
	p.saysReady = p.module.Wants(hostModule, functionReady)
	sum := sha256.Sum256(p.module.Binary)
	p.digest = hex.EncodeToString(sum[:])
	return nil
}

// Where guests find directories.
const (
	configMount = "/config"
	secretMount = "/secrets"
	dataMount   = "/data"
	hubMount    = "/run/skerry"
)

func (p *program) openMounts() error {
	env := map[string]string{}
	maps.Copy(env, p.spec.Env)
	env["SKERRY_NAMESPACE"], env["SKERRY_APP"] = p.spec.App.Namespace, p.spec.App.Name
	if p.spec.ConfigDir != "" {
		env["SKERRY_CONFIG_DIR"] = configMount
	}
	if p.spec.SecretDir != "" {
		env["SKERRY_SECRETS_DIR"] = secretMount
	}
	type place struct {
		at, dir string
		write   bool
	}
	places := []place{{"/", p.spec.Dir, false}, {configMount, p.spec.ConfigDir, false}, {secretMount, p.spec.SecretDir, false}}
	if file := env["SKERRY_HUB_FILE"]; file != "" {
		places = append(places, place{hubMount, filepath.Dir(file), false})
		env["SKERRY_HUB_FILE"] = path.Join(hubMount, filepath.Base(file))
	}
	for _, name := range slices.Sorted(maps.Keys(p.spec.DataDirs)) {
		if name == app.KeyValueDir {
			continue
		}
		at := path.Join(dataMount, name)
		places = append(places, place{at, p.spec.DataDirs[name], true})
		env["SKERRY_DATA_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = at
	}
	for _, place := range places {
		if place.dir == "" {
			continue
		}
		m, err := openMount(place.at, place.dir, place.write)
		if err != nil {
			return fmt.Errorf("directory for %s: %w: %w", place.at, err, ErrSpec)
		}
		p.mounts = append(p.mounts, m)
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		p.env = append(p.env, name+"="+env[name])
	}
	return nil
}

// compileAlone is how long a module is compiled before the next one may begin beside it.
const compileAlone = time.Minute

// compile makes the module ready to be instantiated. It may take seconds; p.ctx ends it.
func (p *program) compile() error {
	select {
	case p.rt.compiling <- struct{}{}:
		// Other apps do not wait for ever behind a module that is made to be compiled slowly.
		release := sync.OnceFunc(func() { <-p.rt.compiling })
		patience := time.AfterFunc(compileAlone, release)
		defer patience.Stop()
		defer release()
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
	compilations, err := p.rt.cache.use(p.digest)
	if err != nil {
		return err
	}
	p.wazero = wazero.NewRuntimeWithConfig(p.ctx, wazero.NewRuntimeConfig().
		WithCoreFeatures(api.CoreFeaturesV2).WithCompilationCache(compilations).WithCloseOnContextDone(true).
		WithDebugInfoEnabled(false))
	if err := errors.Join(instantiateWASI(p.ctx, p.wazero), instantiateHost(p.ctx, p.wazero)); err != nil {
		return err
	}
	begun := time.Now()
	// Of two workers each looks at the context between functions, which one alone does not.
	p.compiled, err = p.wazero.CompileModule(experimental.WithCompilationWorkers(p.ctx, 2), p.module.Binary)
	if err != nil {
		return fmt.Errorf("%s: %w", p.config.Module, err)
	}
	p.rt.metrics.compile.Observe(time.Since(begun).Seconds())
	p.rt.log.Info("module is ready", "app", p.spec.App.String(), "release", p.spec.Release, "module", p.config.Module,
		"took", time.Since(begun).Round(time.Millisecond), "checked", p.module.Checked)
	if err := p.rt.cache.saved(p.digest); err != nil { // it is compiled anew at the next start
		p.rt.log.Warn("compiled module is not kept", "app", p.spec.App.String(), "error", err)
	}
	return nil
}

// close ends all guests and lets go of everything.
func (p *program) close() error {
	p.cancel()
	p.guests.Wait()
	var errs []error
	if p.wazero != nil {
		errs = append(errs, p.wazero.Close(context.Background()))
		p.rt.cache.release(p.digest)
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	if p.outbound != nil {
		p.outbound.Close()
	}
	return errors.Join(append(errs, p.mounts.close())...)
}

func (p *program) timeout() time.Duration {
	return time.Duration(p.limits.TimeoutSeconds) * time.Second
}
