package fleet

// Leaving says why an agent stops, in its own last words. Empty: it said nothing, or no reason.
type Leaving string

// The reasons that an agent knows.
const (
	// LeavingStop: somebody stopped the agent.
	LeavingStop Leaving = "Stop"
	// LeavingReboot and LeavingPowerOff: its machine goes down, to come back or not.
	LeavingReboot   Leaving = "Reboot"
	LeavingPowerOff Leaving = "PowerOff"
	// LeavingRestart: another agent follows at once, such as a newer version.
	LeavingRestart Leaving = "Restart"
)

// Transport is what the hub's end of a site's connection shows. It is evidence, not proof.
type Transport string

// The states of a transport. Empty: there was no connection since this hub started.
const (
	// TransportOpen: there is a connection, whether or not anything was heard on it lately.
	TransportOpen Transport = "Open"
	// TransportClosed: the site's machine closed the last connection: it was up, and so was the network.
	TransportClosed Transport = "Closed"
	// TransportLost: the last connection fell silent until the hub gave it up.
	TransportLost Transport = "Lost"
	// TransportEnded: the hub itself ended the last connection.
	TransportEnded Transport = "Ended"
)
