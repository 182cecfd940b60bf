package v1alpha1

// ConditionReady is on every kind. True: the object is as its spec says. False: the message says what a
// person can do. Unknown: it is not known yet. Its observedGeneration says which spec it speaks of.
const ConditionReady = "Ready"

// Conditions that generic tools read (kstatus, Argo CD). They are present only while they hold.
const (
	// ConditionReconciling: the hub or a site still works on it and no person is needed.
	ConditionReconciling = "Reconciling"
	// ConditionStalled: nothing will change until somebody changes something.
	ConditionStalled = "Stalled"
	// ConditionSecretMissing: a Secret that the app names is not there, or lacks a key. Sites that have an
	// earlier copy keep it; no other site and no release is told until it is there again.
	ConditionSecretMissing = "SecretMissing"
	// ConditionDegraded: a site's agent says that something is wrong with itself or its machine, such as a full
	// disk. What runs there goes on as far as it can.
	ConditionDegraded = "Degraded"
)

// Reasons of conditions.
const (
	ReasonReady           = "Ready"
	ReasonProgressing     = "Progressing"
	ReasonNoSites         = "NoSites"
	ReasonBundleNotFound  = "BundleNotFound"
	ReasonBundleInvalid   = "BundleInvalid"
	ReasonNotGranted      = "NotGranted"
	ReasonSitesFailing    = "SitesFailing"
	ReasonSitesAway       = "SitesAway"
	ReasonSectionTooLarge = "SectionTooLarge"
	ReasonConnected       = "Connected"
	ReasonAway            = "Away"
	ReasonNeverConnected  = "NeverConnected"
	ReasonRevoked         = "Revoked"
	ReasonAgentProblems   = "AgentProblems"
	ReasonSelectorInvalid = "SelectorInvalid"
	ReasonUpdateInvalid   = "UpdateInvalid"
	// ReasonConfigMapNotFound: valuesFrom names a ConfigMap or a key that is not there.
	ReasonConfigMapNotFound = "ConfigMapNotFound"
	// ReasonValuesInvalid: values cannot be read, or the bundle's schema does not allow them.
	ReasonValuesInvalid = "ValuesInvalid"
	// ReasonConfigInvalid: a reference leads nowhere, files meet, or all of it is too large.
	ReasonConfigInvalid = "ConfigInvalid"
)

// Reasons of conditions that speak of an App's secretRefs.
const (
	ReasonSecretsInvalid     = "SecretsInvalid"
	ReasonSecretNotFound     = "SecretNotFound"
	ReasonSecretsUndelivered = "SecretsUndelivered"
)

// Conditions of a Task, as a Kubernetes Job has them. They are present only while they hold.
const (
	// ConditionComplete: every site succeeded.
	ConditionComplete = "Complete"
	// ConditionFailed: every site is done, and some failed, missed it or were cancelled.
	ConditionFailed = "Failed"
)

// Reasons of conditions of Tasks and CronTasks.
const (
	ReasonComplete    = "Complete"
	ReasonCancelled   = "Cancelled"
	ReasonAppNotFound = "AppNotFound"
	// ReasonScheduleInvalid: schedule is no cron expression, or a time that never comes.
	ReasonScheduleInvalid = "ScheduleInvalid"
	ReasonScheduled       = "Scheduled"
)
