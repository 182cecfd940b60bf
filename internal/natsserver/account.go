package natsserver

import (
	"fmt"

	"github.com/nats-io/jwt/v2"
)

// Bounds of the account. Streams and consumers are the hub's own, a handful each.
const (
	maxStreams   = 16
	maxConsumers = 256
)

func (s *Server) operatorClaims(system string) (*jwt.OperatorClaims, error) {
	public, err := s.keys.operator.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("operator key of the bus: %w", err)
	}
	claims := jwt.NewOperatorClaims(public)
	claims.Name = "skerry"
	claims.SystemAccount = system
	token, err := claims.Encode(s.keys.operator)
	if err != nil {
		return nil, fmt.Errorf("sign operator of the bus: %w", err)
	}
	// The server wants claims that were verified, so they are read back.
	return jwt.DecodeOperatorClaims(token)
}

func (s *Server) storeSystemAccount(public string) error {
	claims := jwt.NewAccountClaims(public)
	claims.Name = "system"
	return s.storeAccount(claims)
}

// accountClaims describes the one account that hub and members use.
func (s *Server) accountClaims() (*jwt.AccountClaims, error) {
	signing, err := s.keys.signing.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("signing key of the bus: %w", err)
	}
	claims := jwt.NewAccountClaims(s.issuer.account)
	claims.Name = "fleet"
	claims.SigningKeys.Add(signing)
	claims.Limits.DisallowBearer = true
	claims.Limits.LeafNodeConn = 0
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{
		MemoryStorage: maxMemory, DiskStorage: s.store,
		Streams: maxStreams, Consumer: maxConsumers,
	}
	claims.Revocations = s.revoked.list()
	return claims, nil
}

func (s *Server) storeAccount(claims *jwt.AccountClaims) error {
	token, err := claims.Encode(s.keys.operator)
	if err == nil {
		err = s.resolver.Store(claims.Subject, token)
	}
	if err != nil {
		return fmt.Errorf("sign account %s of the bus: %w", claims.Name, err)
	}
	return nil
}

// applyAccount makes the running server take the account as it is now. It closes the connections of
// users who are revoked.
func (s *Server) applyAccount() error {
	s.accountMu.Lock()
	defer s.accountMu.Unlock()
	claims, err := s.accountClaims()
	if err != nil {
		return err
	}
	if err := s.storeAccount(claims); err != nil {
		return err
	}
	account, err := s.nats.LookupAccount(claims.Subject)
	if err != nil {
		return fmt.Errorf("apply revocations to the bus: %w", err)
	}
	s.nats.UpdateAccountClaims(account, claims)
	return nil
}
