package accounts

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/isobar-project/isobar/schemas"
)

// User is one who may connect. It has a password or an nkey, not both.
type User struct {
	// Name is one token of a subject: the user's inbox has it.
	Name string
	// PasswordHash is a bcrypt hash ($2a$…), as `htpasswd -nbB` or `nats server passwd`
	// make it. The password itself is taken too, for credentials that live as long as the
	// process, if Plain is set.
	PasswordHash string
	Plain        bool
	// NKey is the public key of a user's nkey (U…).
	NKey string
	Role schemas.Role
}

// Tenant is one account and who may use it.
type Tenant struct {
	Name  string
	Users []User
}

// Config is who may connect. Nodes are the nodes' own users, whose role says nothing:
// they may do everything in their account.
type Config struct {
	Nodes   []User
	Tenants []Tenant
	// JetStream lets the nodes keep the history of events.
	JetStream bool
}

// NodeAccount is the account of the nodes.
const NodeAccount = "ISOBAR"

// form is compiled when it is first asked for: the same program is a vault, which has a few
// megabytes and no accounts.
func form(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

var (
	nameForm = form(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)
	hashForm = form(`^\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}$`)
	nkeyForm = form(`^U[A-Z2-7]{55}$`)
)

// Validate says what is wrong. The errors name no secret.
func (c *Config) Validate() error {
	var errs []error
	names := map[string]bool{}
	check := func(where string, u User, node bool) {
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s: user %q: %s", where, u.Name, fmt.Sprintf(format, args...)))
		}
		switch {
		case !nameForm().MatchString(u.Name):
			bad("a name is 1 to 63 letters, digits, dashes and underscores")
		case names[u.Name]:
			bad("the name is taken: names are unique on a server")
		case u.NKey != "" && u.PasswordHash != "", u.NKey == "" && u.PasswordHash == "":
			bad("give either password_hash or nkey")
		case u.NKey != "" && !nkeyForm().MatchString(u.NKey):
			bad("nkey is the public key of a user: U and 55 more characters")
		case u.PasswordHash != "" && !u.Plain && !hashForm().MatchString(u.PasswordHash):
			bad("password_hash is a bcrypt hash, $2a$…: `nats server passwd` makes one")
		case !node && u.Role != schemas.RoleReader && u.Role != schemas.RoleClient && u.Role != schemas.RoleOperator:
			bad("the role %q is unknown: choose reader, client or operator", u.Role)
		}
		names[u.Name] = true
	}
	for _, u := range c.Nodes {
		check("nodes", u, true)
	}
	tenants := map[string]bool{}
	for _, t := range c.Tenants {
		if !schemas.ValidToken(t.Name) {
			errs = append(errs, fmt.Errorf("tenant %q: a name is 1 to 63 lower-case letters, digits and dashes", t.Name))
		}
		if tenants[t.Name] {
			errs = append(errs, fmt.Errorf("tenant %q is there twice", t.Name))
		}
		tenants[t.Name] = true
		for _, u := range t.Users {
			check("tenant "+t.Name, u, false)
		}
	}
	return errors.Join(errs...)
}

// Hash is the bcrypt hash of a password; what is one already stays as it is.
func Hash(password string) (string, error) {
	if _, err := bcrypt.Cost([]byte(password)); err == nil {
		return password, nil
	}
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	return string(b), err
}

// InboxPrefix is the private inbox of a user: what a client sets as its inbox prefix.
func InboxPrefix(user string) string { return "_INBOX_" + user }

// Text is the configuration as nats-server reads it: an `accounts` block, to be included
// in a server's file.
func (c *Config) Text() string {
	w := &writer{}
	w.line("# Accounts of Isobar's nodes and tenants. Generated: do not edit.")
	w.open("accounts")
	w.open(NodeAccount)
	if c.JetStream {
		w.line("jetstream: enabled")
	}
	w.list("users", len(c.Nodes), func(i int) string { return "{" + credentials(c.Nodes[i]) + "}" })
	var exports, imports []string
	for _, t := range c.Tenants {
		to := accountOf(t.Name)
		for _, s := range eventSubjects() {
			exports = append(exports, fmt.Sprintf("{stream: %q, accounts: [%s]}", schemas.TenantSubject(t.Name, s), to))
		}
		for _, s := range historySubjects(schemas.TenantEventStream(t.Name)) {
			exports = append(exports, fmt.Sprintf("{service: %q, response_type: \"stream\", accounts: [%s]}", s, to))
		}
		imports = append(imports, taken(to, t.of(false), func(s string) string { return schemas.TenantSubject(t.Name, s) })...)
		if t.operated() {
			imports = append(imports, taken(operatorsOf(t.Name), t.of(true), func(s string) string { return schemas.OperatorSubject(t.Name, s) })...)
		}
	}
	if operators := c.operatorAccounts(); len(operators) > 0 {
		all := strings.Join(operators, ", ")
		for _, s := range eventSubjects() {
			exports = append(exports, fmt.Sprintf("{stream: %q, accounts: [%s]}", s, all))
		}
		for _, s := range historySubjects(schemas.EventStream) {
			exports = append(exports, fmt.Sprintf("{service: %q, response_type: \"stream\", accounts: [%s]}", s, all))
		}
		exports = append(exports, fmt.Sprintf("{service: %q, response_type: \"stream\", accounts: [%s]}", discoverySubject, all))
	}
	w.list("exports", len(exports), func(i int) string { return exports[i] })
	w.list("imports", len(imports), func(i int) string { return imports[i] })
	w.close()
	for _, t := range c.Tenants {
		t.write(w)
	}
	w.close()
	return w.b.String()
}

func (c *Config) operatorAccounts() (names []string) {
	for _, t := range c.Tenants {
		if t.operated() {
			names = append(names, operatorsOf(t.Name))
		}
	}
	return names
}

// operated reports whether a tenant has operators.
func (t *Tenant) operated() bool { return len(t.of(true)) > 0 }

// of lists the operators, or the others.
func (t *Tenant) of(operators bool) (users []User) {
	for _, u := range t.Users {
		if (u.Role == schemas.RoleOperator) == operators {
			users = append(users, u)
		}
	}
	return users
}

// taken are the imports by which the nodes hear an account's commands, and reach the inboxes
// of its users. Commands come as a stream: the subject to answer to stays what the client said,
// so that the server can tell whether somebody listens there. Through an import of a service it
// would be one of the server's own, which takes every answer.
func taken(account string, users []User, at func(string) string) (imports []string) {
	for _, s := range sentSubjects() {
		imports = append(imports, fmt.Sprintf("{stream: {account: %s, subject: %q}, to: %q}", account, s, at(s)))
	}
	for _, u := range users {
		inbox := InboxPrefix(u.Name) + ".>"
		imports = append(imports, fmt.Sprintf("{service: {account: %s, subject: %q}, to: %q}", account, inbox, at(schemas.InboxSubject(inbox))))
	}
	return imports
}

// given are the exports that those imports need.
func given(users []User) (exports []string) {
	for _, s := range sentSubjects() {
		exports = append(exports, fmt.Sprintf("{stream: %q, accounts: [%s]}", s, NodeAccount))
	}
	for _, u := range users {
		exports = append(exports, fmt.Sprintf("{service: %q, threshold: %q, accounts: [%s]}", InboxPrefix(u.Name)+".>", unheardFor, NodeAccount))
	}
	return exports
}

// unheardFor is how long the server keeps what it needs to pass on that nobody heard an answer.
const unheardFor = "10s"

func (t *Tenant) write(w *writer) {
	w.open(accountOf(t.Name))
	users := t.of(false)
	w.list("users", len(users), func(i int) string {
		return fmt.Sprintf("{%s, permissions: %s}", credentials(users[i]), permissions(users[i]))
	})
	exports := given(users)
	w.list("exports", len(exports), func(i int) string { return exports[i] })
	var imports []string
	for _, s := range eventSubjects() {
		imports = append(imports, fmt.Sprintf("{stream: {account: %s, subject: %q}, to: %q}", NodeAccount, schemas.TenantSubject(t.Name, s), s))
	}
	as := historySubjects(schemas.EventStream)
	for i, s := range historySubjects(schemas.TenantEventStream(t.Name)) {
		imports = append(imports, fmt.Sprintf("{service: {account: %s, subject: %q}, to: %q}", NodeAccount, s, as[i]))
	}
	w.list("imports", len(imports), func(i int) string { return imports[i] })
	w.close()
	operators := t.of(true)
	if len(operators) == 0 {
		return
	}
	w.open(operatorsOf(t.Name))
	w.list("users", len(operators), func(i int) string {
		return fmt.Sprintf("{%s, permissions: %s}", credentials(operators[i]), permissions(operators[i]))
	})
	exports = given(operators)
	w.list("exports", len(exports), func(i int) string { return exports[i] })
	imports = nil
	for _, s := range eventSubjects() {
		imports = append(imports, fmt.Sprintf("{stream: {account: %s, subject: %q}}", NodeAccount, s))
	}
	for _, s := range append(historySubjects(schemas.EventStream), discoverySubject) {
		imports = append(imports, fmt.Sprintf("{service: {account: %s, subject: %q}}", NodeAccount, s))
	}
	w.list("imports", len(imports), func(i int) string { return imports[i] })
	w.close()
}

func accountOf(tenant string) string   { return "tenant-" + tenant }
func operatorsOf(tenant string) string { return "operators-" + tenant }

func credentials(u User) string {
	if u.NKey != "" {
		return fmt.Sprintf("nkey: %s", u.NKey)
	}
	return fmt.Sprintf("user: %q, password: %q", u.Name, u.PasswordHash)
}

// writer indents.
type writer struct {
	b     strings.Builder
	depth int
}

func (w *writer) line(s string) { w.b.WriteString(strings.Repeat("  ", w.depth) + s + "\n") }

func (w *writer) open(name string) {
	w.line(name + " {")
	w.depth++
}

func (w *writer) close() {
	w.depth--
	w.line("}")
}

func (w *writer) list(name string, n int, item func(i int) string) {
	if n == 0 {
		return
	}
	w.line(name + ": [")
	w.depth++
	for i := range n {
		w.line(item(i))
	}
	w.depth--
	w.line("]")
}
