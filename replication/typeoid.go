package replication

// OIDs of the built-in types that have a JSON form of their own (pg_type.dat). They never change.
const (
	oidBool        = 16
	oidBytea       = 17
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidJSON        = 114
	oidFloat4      = 700
	oidFloat8      = 701
	oidDate        = 1082
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidNumeric     = 1700
	oidJSONB       = 3802

	// firstNormalOID is PostgreSQL's FirstGenbkiObjectId: types below it are the same on every server.
	firstNormalOID = 10000
)

// arrayElem maps a built-in array type to its element type.
var arrayElem = map[uint32]uint32{
	143: 142, 199: 114, 271: 5069, 629: 628, 651: 650, 719: 718, 775: 774, 791: 790,
	1000: 16, 1001: 17, 1002: 18, 1003: 19, 1005: 21, 1006: 22, 1007: 23, 1008: 24, 1009: 25, 1010: 27, 1011: 28, 1012: 29,
	1013: 30, 1014: 1042, 1015: 1043, 1016: 20, 1017: 600, 1018: 601, 1019: 602, 1020: 603, 1021: 700, 1022: 701, 1027: 604,
	1028: 26, 1034: 1033, 1040: 829, 1041: 869, 1115: 1114, 1182: 1082, 1183: 1083, 1185: 1184, 1187: 1186, 1231: 1700,
	1270: 1266, 1561: 1560, 1563: 1562, 2201: 1790, 2207: 2202, 2208: 2203, 2209: 2204, 2210: 2205, 2211: 2206, 2949: 2970,
	2951: 2950, 3221: 3220, 3643: 3614, 3644: 3642, 3645: 3615, 3735: 3734, 3770: 3769, 3807: 3802, 3905: 3904, 3907: 3906,
	3909: 3908, 3911: 3910, 3913: 3912, 3927: 3926, 4073: 4072, 4090: 4089, 4097: 4096, 4192: 4191, 5039: 5038, 6150: 4451,
	6151: 4532, 6152: 4533, 6153: 4534, 6155: 4535, 6157: 4536,
}

const oidBoxArray = 1020 // box[] is the one built-in array whose elements a semicolon separates

// shape is how a column's type is read: the type under domains, and for arrays the element's type and separator.
type shape struct {
	base, elem uint32
	delim      byte
}

func (c Column) shape() shape {
	s := shape{base: c.Base, elem: c.Elem, delim: c.Delim}
	if s.base == 0 {
		s.base = c.TypeOID
	}
	if s.elem == 0 {
		s.elem = arrayElem[s.base]
	}
	if s.delim == 0 {
		s.delim = ','
		if s.base == oidBoxArray {
			s.delim = ';'
		}
	}
	return s
}
