-- Prints testdata/vectors.txt: for each key type and value, in PostgreSQL's own words, the value's text form, its
-- binary form, its hash as partitioning computes it (an unsigned number) and its partition of 4096. Run it by
-- psql -XqAt -F '|' against any PostgreSQL from 15. satisfies_hash_partition itself must agree with the partition.
-- The type's extended hash function cannot always be called by name (bytea and date borrow another type's), but
-- hash_array_extended calls it for an array's element: 31 + hash for an array of one.
SET client_min_messages = warning;
SET timezone = 'UTC';
SET bytea_output = 'hex';
CREATE SCHEMA vectors;
SET search_path = vectors;
CREATE FUNCTION emit(typename text, sendfn text, vals text[]) RETURNS TABLE (t text, v text, b text, h text, p int)
LANGUAGE plpgsql AS $$
DECLARE
  val text;
BEGIN
  EXECUTE format('CREATE TABLE part (k %s) PARTITION BY HASH (k)', typename);
  FOREACH val IN ARRAY vals LOOP
    t := typename;
    v := replace(replace(replace(val, '%', '%25'), '|', '%7C'), E'\n', '%0A');
    EXECUTE format('SELECT encode(%s($1::%s), ''hex''), hash_array_extended(ARRAY[$1::%s], 8816678312871386365)::text', sendfn, typename, typename) INTO b, h USING val;
    h := ((h::numeric - 31 + 18446744073709551616 + 5305509591434766563) % 18446744073709551616)::text;
    p := (h::numeric % 4096)::int;
    -- not a computation of ours: PostgreSQL must agree
    EXECUTE format('SELECT $1 WHERE satisfies_hash_partition(''vectors.part''::regclass, 4096, $1, $2::%s)', typename) INTO STRICT p USING p, val;
    RETURN NEXT;
  END LOOP;
  DROP TABLE part;
END $$;
SELECT * FROM emit('int2', 'int2send', '{0,1,-1,42,32767,-32768, 7 ,+7}');
SELECT * FROM emit('int4', 'int4send', '{0,1,-1,42,32768,2147483647,-2147483648,100000}');
SELECT * FROM emit('int8', 'int8send', '{0,1,-1,2,3,4,5,6,7,8,9,10,42,2147483647,-2147483648,2147483648,-2147483649,4294967295,4294967296,9223372036854775807,-9223372036854775808,1234567890123}');
SELECT * FROM emit('text', 'textsend', ARRAY['', 'a', 'ab', 'abc', 'abcd', 'abcde', 'abcdefgh', 'abcdefghi', 'abcdefghijk', 'abcdefghijkl', 'abcdefghijklm', 'the quick brown fox jumps over the lazy dog', 'Grüße', '日本語', ' a ', 'a|b', repeat('x', 300)]);
SELECT * FROM emit('varchar', 'varcharsend', ARRAY['', 'abc', 'abc ', 'customer-0001']);
SELECT * FROM emit('bpchar', 'bpcharsend', ARRAY['', 'abc', 'abc  ', '  ', ' x']);
SELECT * FROM emit('uuid', 'uuid_send', '{00000000-0000-0000-0000-000000000000,ffffffff-ffff-ffff-ffff-ffffffffffff,a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11,a0eebc999c0b4ef8bb6d6bb9bd380a11,"{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11}');
SELECT * FROM emit('bytea', 'byteasend', ARRAY['', '\x', '\x00', '\xDEADbeef', '\xde ad', 'abc', 'a\\b', 'a\000b', '\x000102030405060708090a0b0c0d']);
SELECT * FROM emit('date', 'date_send', '{2000-01-01,1999-12-31,1970-01-01,2024-02-29,0001-01-01,9999-12-31,infinity,-infinity}');
SELECT * FROM emit('timestamp', 'timestamp_send', ARRAY['2000-01-01 00:00:00', '2000-01-01', '1999-12-31 23:59:59.999999', '2024-05-17 10:11:12.5', '2024-05-17T10:11', '1969-07-20 20:17:40', 'infinity', '-infinity']);
SELECT * FROM emit('timestamptz', 'timestamptz_send', ARRAY['2000-01-01 00:00:00+00', '2000-01-01 01:00:00+01', '2024-05-17 10:11:12.5-07:30', '2024-05-17T10:11:12Z', '2024-05-17 10:11+0530', 'infinity', '-infinity']);
SELECT * FROM emit('numeric', 'numeric_send', '{0,0.00,1,1.0,1.000000,-1,10,100,1000,10000,100000,10000.0001,0.1,0.01,0.0001,0.00001,12345.6789,1e3,1E-3,1.5e2,.5,5.,9999,99999999,123456789012345678901234567890,NaN,-0,00012.3400}');
SELECT * FROM emit('numeric', 'numeric_send', '{Infinity,-inf}');
SELECT * FROM emit('bool', 'boolsend', '{true,false,t,f,on,off,yes,n,1,0}');
SELECT * FROM emit('oid', 'oidsend', '{0,1,16384,4294967295}');
SELECT * FROM emit('"char"', 'charsend', ARRAY['', 'a', 'Z', '1']);
DROP FUNCTION emit;
DROP SCHEMA vectors;
