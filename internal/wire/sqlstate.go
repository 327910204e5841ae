package wire

// SQLSTATE codes, named as in PostgreSQL's errcodes.txt (without ERRCODE_). Those that Tidemark raises or acts on.
const (
	SuccessfulCompletion = "00000"
	Warning              = "01000"

	// Class 08: connection exception
	ConnectionException                         = "08000"
	ConnectionDoesNotExist                      = "08003"
	ConnectionFailure                           = "08006"
	SQLClientUnableToEstablishSQLConnection     = "08001"
	SQLServerRejectedEstablishmentSQLConnection = "08004"
	TransactionResolutionUnknown                = "08007"
	ProtocolViolation                           = "08P01"

	FeatureNotSupported = "0A000"

	// Class 22: data exception
	DataException                   = "22000"
	NullValueNotAllowed             = "22004"
	NumericValueOutOfRange          = "22003"
	InvalidParameterValue           = "22023"
	InvalidTextRepresentation       = "22P02"
	InvalidBinaryRepresentation     = "22P03"
	BadCopyFileFormat               = "22P04"
	CharacterNotInRepertoire        = "22021"
	InvalidDatetimeFormat           = "22007"
	InvalidEscapeSequence           = "22025"
	NonstandardUseOfEscape          = "22P06"
	IntegrityConstraintViolation    = "23000"
	NotNullViolation                = "23502"
	ForeignKeyViolation             = "23503"
	UniqueViolation                 = "23505"
	CheckViolation                  = "23514"
	InvalidCursorState              = "24000"
	InvalidTransactionState         = "25000"
	ActiveSQLTransaction            = "25001"
	ReadOnlySQLTransaction          = "25006"
	NoActiveSQLTransaction          = "25P01"
	InFailedSQLTransaction          = "25P02"
	IdleInTransactionSessionTimeout = "25P03"
	InvalidSQLStatementName         = "26000"

	// Class 28: invalid authorization specification
	InvalidAuthorizationSpecification = "28000"
	InvalidPassword                   = "28P01"

	InvalidCursorName             = "34000"
	InvalidSavepointSpecification = "3B001"
	InvalidCatalogName            = "3D000"
	InvalidSchemaName             = "3F000"

	// Class 40: transaction rollback
	TransactionRollback        = "40000"
	SerializationFailure       = "40001"
	StatementCompletionUnknown = "40003"
	DeadlockDetected           = "40P01"

	// Class 42: syntax error or access rule violation
	SyntaxErrorOrAccessRuleViolation = "42000"
	SyntaxError                      = "42601"
	NameTooLong                      = "42622"
	InsufficientPrivilege            = "42501"
	CannotCoerce                     = "42846"
	DatatypeMismatch                 = "42804"
	IndeterminateDatatype            = "42P18"
	UndefinedColumn                  = "42703"
	UndefinedFunction                = "42883"
	UndefinedTable                   = "42P01"
	UndefinedParameter               = "42P02"
	UndefinedObject                  = "42704"
	DuplicateCursor                  = "42P03"
	DuplicatePreparedStatement       = "42P05"
	DuplicateTable                   = "42P07"
	DuplicateObject                  = "42710"
	AmbiguousColumn                  = "42702"

	// Class 53: insufficient resources
	InsufficientResources      = "53000"
	DiskFull                   = "53100"
	OutOfMemory                = "53200"
	TooManyConnections         = "53300"
	ConfigurationLimitExceeded = "53400"

	// Class 54: program limit exceeded
	ProgramLimitExceeded = "54000"
	StatementTooComplex  = "54001"
	TooManyColumns       = "54011"

	// Class 55: object not in prerequisite state
	ObjectNotInPrerequisiteState = "55000"
	ObjectInUse                  = "55006"
	CantChangeRuntimeParam       = "55P02"
	LockNotAvailable             = "55P03"

	// Class 57: operator intervention
	OperatorIntervention = "57000"
	QueryCanceled        = "57014"
	AdminShutdown        = "57P01"
	CrashShutdown        = "57P02"
	CannotConnectNow     = "57P03"
	DatabaseDropped      = "57P04"
	IdleSessionTimeout   = "57P05"

	SystemError     = "58000"
	IOError         = "58030"
	ConfigFileError = "F0000"

	// Class XX: internal error
	InternalError = "XX000"
	DataCorrupted = "XX001"
)
