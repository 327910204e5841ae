package wire

import "encoding/binary"

// AppendAuthenticationOK appends AuthenticationOk.
func AppendAuthenticationOK(dst []byte) []byte { return appendAuth(dst, AuthOK, nil) }

// AppendAuthenticationCleartextPassword asks for a password in clear text; only ever over TLS.
func AppendAuthenticationCleartextPassword(dst []byte) []byte {
	return appendAuth(dst, AuthCleartextPassword, nil)
}

// AppendAuthenticationMD5Password asks for md5(md5(password || user) || salt).
func AppendAuthenticationMD5Password(dst []byte, salt [4]byte) []byte {
	return appendAuth(dst, AuthMD5Password, salt[:])
}

// AppendAuthenticationSASL offers SASL mechanisms, the preferred one first.
func AppendAuthenticationSASL(dst []byte, mechanisms ...string) []byte {
	dst, at := begin(dst, MsgAuthentication)
	dst = appendInt32(dst, AuthSASL)
	for _, m := range mechanisms {
		dst = appendCString(dst, m)
	}
	return finish(append(dst, 0), at)
}

// AppendAuthenticationSASLContinue appends a challenge.
func AppendAuthenticationSASLContinue(dst, data []byte) []byte {
	return appendAuth(dst, AuthSASLContinue, data)
}

// AppendAuthenticationSASLFinal appends the server's last word, which AuthenticationOk follows.
func AppendAuthenticationSASLFinal(dst, data []byte) []byte {
	return appendAuth(dst, AuthSASLFinal, data)
}

func appendAuth(dst []byte, code int32, data []byte) []byte {
	dst, at := begin(dst, MsgAuthentication)
	return finish(append(appendInt32(dst, code), data...), at)
}

// AppendBackendKeyData appends what the client must name to cancel. key has 4 bytes for protocol 3.0.
func AppendBackendKeyData(dst []byte, pid uint32, key []byte) []byte {
	dst, at := begin(dst, MsgBackendKeyData)
	return finish(append(binary.BigEndian.AppendUint32(dst, pid), key...), at)
}

// AppendParameterStatus appends a ParameterStatus.
func AppendParameterStatus[N, V Text](dst []byte, name N, value V) []byte {
	dst, at := begin(dst, MsgParameterStatus)
	return finish(appendCString(appendCString(dst, name), value), at)
}

// AppendReadyForQuery appends ReadyForQuery with TxIdle, TxOpen or TxAborted.
func AppendReadyForQuery(dst []byte, status byte) []byte {
	return append(dst, MsgReadyForQuery, 0, 0, 0, 5, status)
}

// AppendNegotiateProtocolVersion answers a client that asked for a newer minor version or unknown options.
func AppendNegotiateProtocolVersion(dst []byte, minor uint16, unknown []string) []byte {
	dst, at := begin(dst, MsgNegotiateProtocolVersion)
	dst = appendInt32(dst, Protocol30|int32(minor))
	dst = appendInt32(dst, int32(len(unknown)))
	for _, o := range unknown {
		dst = appendCString(dst, o)
	}
	return finish(dst, at)
}

// AppendRowDescription appends a RowDescription.
func AppendRowDescription(dst []byte, fields []Field) []byte {
	dst, at := begin(dst, MsgRowDescription)
	dst = appendInt16(dst, int16(len(fields)))
	for i := range fields {
		f := &fields[i]
		dst = appendCString(dst, f.Name)
		dst = binary.BigEndian.AppendUint32(dst, f.TableOID)
		dst = appendInt16(dst, f.Attr)
		dst = binary.BigEndian.AppendUint32(dst, f.TypeOID)
		dst = appendInt16(dst, f.TypeLen)
		dst = appendInt32(dst, f.TypeMod)
		dst = appendInt16(dst, f.Format)
	}
	return finish(dst, at)
}

// AppendDataRow appends a DataRow; a nil value is NULL.
func AppendDataRow(dst []byte, values ...[]byte) []byte {
	dst, at := begin(dst, MsgDataRow)
	dst = appendInt16(dst, int16(len(values)))
	for _, v := range values {
		dst = appendValue(dst, v)
	}
	return finish(dst, at)
}

// AppendCommandComplete appends a CommandComplete, such as of "SELECT 1".
func AppendCommandComplete[S Text](dst []byte, tag S) []byte {
	dst, at := begin(dst, MsgCommandComplete)
	return finish(appendCString(dst, tag), at)
}

// AppendParameterDescription appends the types of a statement's parameters.
func AppendParameterDescription(dst []byte, oids []uint32) []byte {
	dst, at := begin(dst, MsgParameterDescription)
	dst = appendInt16(dst, int16(len(oids)))
	for _, o := range oids {
		dst = binary.BigEndian.AppendUint32(dst, o)
	}
	return finish(dst, at)
}

// AppendParseComplete appends a ParseComplete.
func AppendParseComplete(dst []byte) []byte { return append(dst, MsgParseComplete, 0, 0, 0, 4) }

// AppendBindComplete appends a BindComplete.
func AppendBindComplete(dst []byte) []byte { return append(dst, MsgBindComplete, 0, 0, 0, 4) }

// AppendCloseComplete appends a CloseComplete.
func AppendCloseComplete(dst []byte) []byte { return append(dst, MsgCloseComplete, 0, 0, 0, 4) }

// AppendNoData appends a NoData.
func AppendNoData(dst []byte) []byte { return append(dst, MsgNoData, 0, 0, 0, 4) }

// AppendPortalSuspended appends a PortalSuspended.
func AppendPortalSuspended(dst []byte) []byte { return append(dst, MsgPortalSuspended, 0, 0, 0, 4) }

// AppendEmptyQueryResponse appends an EmptyQueryResponse.
func AppendEmptyQueryResponse(dst []byte) []byte {
	return append(dst, MsgEmptyQueryResponse, 0, 0, 0, 4)
}

// AppendCopyInResponse appends a CopyInResponse: format for the whole, and one for each column.
func AppendCopyInResponse(dst []byte, format byte, columns []int16) []byte {
	return appendCopyResponse(dst, MsgCopyInResponse, format, columns)
}

// AppendCopyOutResponse appends a CopyOutResponse.
func AppendCopyOutResponse(dst []byte, format byte, columns []int16) []byte {
	return appendCopyResponse(dst, MsgCopyOutResponse, format, columns)
}

func appendCopyResponse(dst []byte, typ, format byte, columns []int16) []byte {
	dst, at := begin(dst, typ)
	return finish(appendFormats(append(dst, format), columns), at)
}

// AppendNotification appends a NotificationResponse.
func AppendNotification[C, P Text](dst []byte, pid uint32, channel C, payload P) []byte {
	dst, at := begin(dst, MsgNotificationResponse)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return finish(appendCString(appendCString(dst, channel), payload), at)
}
