package v1alpha1

// SecretRef names a Secret of the app's own namespace, and says what of it the app's programs get and how.
// With neither env nor files they get every key as a file NAME/KEY.
//
// +kubebuilder:validation:XValidation:rule="!has(self.signal) || has(self.onChange) && self.onChange == 'Signal'",fieldPath=".signal",message="a signal needs onChange Signal"
// +kubebuilder:validation:XValidation:rule="!has(self.env) || !has(self.onChange) || self.onChange != 'Signal'",fieldPath=".onChange",message="the environment of a program that runs cannot change: use Restart or None, or files in place of env"
type SecretRef struct {
	// Name of the Secret.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Name string `json:"name"`

	// Optional lets the app run without the Secret, or without those of its keys that are not there.
	// Otherwise it waits for them.
	// +optional
	Optional bool `json:"optional,omitempty"`

	// Env gives keys as environment variables. They must not be in spec.env. PORT and SKERRY_* are the
	// agent's own.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=name
	// +optional
	Env []SecretEnv `json:"env,omitempty"`

	// Files gives keys as files, in memory only, below the directory that SKERRY_SECRETS_DIR names.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=path
	// +optional
	Files []SecretFile `json:"files,omitempty"`

	// OnChange says what happens when a value changes. Restart starts a new instance of the same release
	// beside the old one, which ends when the new one is ready. Signal replaces the files and sends Signal.
	// None replaces the files; variables stay until the next start.
	// +kubebuilder:validation:Enum=Restart;Signal;None
	// +kubebuilder:default=Restart
	// +optional
	OnChange SecretChange `json:"onChange,omitempty"`

	// Signal is sent with onChange Signal; SIGHUP when it is empty.
	// +kubebuilder:validation:Enum=SIGHUP;SIGUSR1;SIGUSR2
	// +optional
	Signal string `json:"signal,omitempty"`
}

// SecretEnv is one key as an environment variable. Its value must not hold a zero byte.
type SecretEnv struct {
	// Name of the variable.
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_]*$`
	// +kubebuilder:validation:XValidation:rule="self != 'PORT' && !self.startsWith('SKERRY_')",message="PORT and SKERRY_* are set by the agent"
	Name string `json:"name"`
	// Key of the Secret.
	Key SecretKey `json:"key"`
}

// SecretFile is one key as a file.
type SecretFile struct {
	// Path below the directory that SKERRY_SECRETS_DIR names: letters, digits, '.', '-' and '_', in parts that
	// "/" separates.
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+(/[-._a-zA-Z0-9]+)*$`
	// +kubebuilder:validation:XValidation:rule="self.split('/').all(p, p != '.' && !p.startsWith('..'))",message="no part may be '.' or begin with '..'"
	Path string `json:"path"`
	// Key of the Secret.
	Key SecretKey `json:"key"`
}

// SecretKey is a key of a Secret's data.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
type SecretKey string

// SecretChange says what happens when a value changes.
type SecretChange string

// The kinds of change.
const (
	SecretRestart SecretChange = "Restart"
	SecretSignal  SecretChange = "Signal"
	SecretNone    SecretChange = "None"
)
