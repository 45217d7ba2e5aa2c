package framing

import (
	"bytes"
	"strings"
)

// respInline is the kind of a request that is one line, with words between
// spaces.
const respInline kind = 1

// respWord is the longest word that names a command. Longer ones are no command
// that this file knows.
const respWord = 32

// commandClass says what is special about a command.
type commandClass uint8

const (
	classWrites   commandClass = iota // nothing
	classSafe                         // only reads
	classBlocks                       // may wait for others
	classState                        // changes what later commands of the connection mean
	classEndless                      // has no reply of its own, or no single one
	classQuit                         // closes the connection
	classSubclass                     // depends on the second word
)

// respCommand is a command, or a subcommand with its name in front.
type respCommand struct {
	name  string
	class commandClass
}

// respCommands are the commands that need care, and the common ones for logs, by
// name. What is not here is passed on as a command that may write.
var respCommands = func() map[string]respCommand {
	all := make(map[string]respCommand)
	for class, names := range map[commandClass]string{
		classWrites: `SET SETNX SETEX PSETEX SETRANGE APPEND MSET MSETNX INCR INCRBY INCRBYFLOAT DECR DECRBY GETSET GETDEL
			GETEX DEL UNLINK EXPIRE EXPIREAT PEXPIRE PEXPIREAT PERSIST RENAME RENAMENX COPY MOVE SORT
			HSET HSETNX HMSET HINCRBY HINCRBYFLOAT HDEL LPUSH LPUSHX RPUSH RPUSHX LPOP RPOP LREM LSET LTRIM
			LINSERT LMOVE RPOPLPUSH LMPOP SADD SREM SPOP SMOVE SINTERSTORE SUNIONSTORE SDIFFSTORE ZADD ZINCRBY
			ZREM ZPOPMIN ZPOPMAX ZMPOP ZRANGESTORE ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREMRANGEBYLEX ZUNIONSTORE
			ZINTERSTORE ZDIFFSTORE PFADD PFMERGE SETBIT BITOP BITFIELD GEOADD XADD XDEL XTRIM XACK XCLAIM
			XAUTOCLAIM XGROUP EVAL EVALSHA FCALL FUNCTION PUBLISH SPUBLISH CONFIG FLUSHALL FLUSHDB SAVE
			BGSAVE BGREWRITEAOF CLUSTER MEMORY LATENCY SLOWLOG ACL MODULE OBJECT DEBUG RESTORE MIGRATE SWAPDB
			REPLICAOF SLAVEOF FAILOVER SHUTDOWN XINFO PUBSUB`,
		classSafe: `GET MGET GETRANGE SUBSTR STRLEN EXISTS TTL PTTL EXPIRETIME PEXPIRETIME TYPE KEYS SCAN RANDOMKEY
			DBSIZE HGET HMGET HGETALL HKEYS HVALS HLEN HSTRLEN HEXISTS HSCAN HRANDFIELD LINDEX LLEN LRANGE LPOS
			SCARD SISMEMBER SMISMEMBER SMEMBERS SRANDMEMBER SSCAN SINTER SINTERCARD SUNION SDIFF ZCARD ZCOUNT
			ZLEXCOUNT ZSCORE ZMSCORE ZRANK ZREVRANK ZRANGE ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE ZRANGEBYLEX
			ZREVRANGEBYLEX ZSCAN ZRANDMEMBER ZDIFF ZINTER ZINTERCARD ZUNION GETBIT BITCOUNT BITPOS BITFIELD_RO
			GEODIST GEOHASH GEOPOS GEOSEARCH XLEN XRANGE XREVRANGE XPENDING DUMP PING ECHO TIME INFO COMMAND
			LASTSAVE LOLWUT ROLE SORT_RO EVAL_RO EVALSHA_RO FCALL_RO`,
		classBlocks: `BLPOP BRPOP BRPOPLPUSH BLMOVE BLMPOP BZPOPMIN BZPOPMAX BZMPOP XREAD XREADGROUP WAIT WAITAOF`,
		classState:  `MULTI EXEC DISCARD WATCH UNWATCH SELECT AUTH HELLO RESET READONLY READWRITE ASKING`,
		classEndless: `SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE MONITOR SYNC PSYNC
			REPLCONF`,
		classQuit:     `QUIT`,
		classSubclass: `CLIENT SCRIPT`,
	} {
		for _, name := range strings.Fields(names) {
			all[name] = respCommand{name, class}
		}
	}
	for class, names := range map[commandClass][]string{
		classEndless: {"CLIENT REPLY", "SCRIPT DEBUG"},
		classState: {
			"CLIENT TRACKING", "CLIENT CACHING", "CLIENT NO-EVICT", "CLIENT NO-TOUCH", "CLIENT SETNAME",
			"CLIENT SETINFO",
		},
	} {
		for _, name := range names {
			all[name] = respCommand{name, class}
		}
	}
	return all
}()

// startCommand looks at a command in the form of an array: whether its first
// words are there, by which it is judged. An empty array is no command.
func (s *respScanner) startCommand(buf []byte) (begin bool, skip int, err error) {
	count, n, err := respCount(buf, '*', respMaxCount)
	if n == 0 || err != nil {
		return false, 0, err
	}
	if count <= 0 {
		return false, n, nil
	}
	word, part, err := respWordAt(buf[n:])
	if part == 0 || err != nil {
		return false, 0, err
	}
	n += part
	var second []byte
	c := lookup(word, nil)
	if c.class == classSubclass && count > 1 {
		if second, part, err = respWordAt(buf[n:]); part == 0 || err != nil {
			return false, 0, err
		}
	}
	s.judge(c, word, second)
	return true, 0, nil
}

// respCount reads a line of a type byte and a number of at most hi. Its size is 0
// when it is not complete.
func respCount(buf []byte, typ byte, hi int64) (count int64, size int, err error) {
	const longest = 32 // bytes of such a line
	i := bytes.IndexByte(buf[:min(len(buf), longest)], '\n')
	if len(buf) > 0 && buf[0] != typ {
		return 0, 0, malformed("expected '%c', got %s", typ, shown(buf[:1]))
	}
	if i < 0 {
		if len(buf) >= longest {
			err = malformed("invalid length %s", shown(buf[1:longest]))
		}
		return 0, 0, err
	}
	body, ok := chop(buf[1 : i+1])
	if ok && string(body) == "-1" && typ == '*' {
		return -1, i + 1, nil
	}
	count, valid := decimal(body)
	if !ok || !valid || count > hi {
		return 0, 0, malformed("invalid length %s", shown(body))
	}
	return count, i + 1, nil
}

// respWordAt reads a bulk string; of one that is too long for a name only its
// size is looked at, and it counts as empty.
func respWordAt(buf []byte) (word []byte, size int, err error) {
	length, n, err := respCount(buf, '$', respMaxBulk)
	if n == 0 || err != nil {
		return nil, 0, err
	}
	if length > respWord {
		return nil, n, nil
	}
	size = n + int(length) + len("\r\n")
	if len(buf) < size {
		return nil, 0, nil
	}
	return buf[n : n+int(length)], size, nil
}

// startInline looks at a command in the form of a line. An empty line is no
// command.
func (s *respScanner) startInline(buf []byte) (begin bool, skip int, err error) {
	n, ok := s.line.find(buf, s.f.line)
	if !ok {
		return false, 0, headTooLarge("an inline command", s.f.line)
	}
	if n == 0 {
		return false, 0, nil
	}
	body, _ := chop(buf[:n])
	word, rest := cutWord(body)
	if len(word) == 0 {
		return false, n, nil
	}
	c := lookup(word, nil)
	var second []byte
	if c.class == classSubclass {
		second, _ = cutWord(rest)
	}
	// Redis looks for the end of the line up to a NUL only.
	if bytes.IndexByte(body, 0) >= 0 {
		return false, 0, malformed("an inline command holds a NUL")
	}
	// Quotes and escapes could hide what command it is.
	if bytes.ContainsAny(word, "\"'\\") || bytes.ContainsAny(second, "\"'\\") {
		return false, 0, malformed("the name of an inline command is quoted")
	}
	// As in Redis: a browser was made to speak to us.
	if bytes.EqualFold(word, []byte("POST")) || bytes.EqualFold(word, []byte("HOST:")) {
		return false, 0, malformed("HTTP is not RESP")
	}
	s.judge(c, word, second)
	s.req.kind = respInline
	return true, 0, nil
}

// cutWord returns the first word of a line and what follows it. Spaces are those
// of C.
func cutWord(line []byte) (word, rest []byte) {
	const space = " \t\n\v\f\r"
	line = bytes.TrimLeft(line, space)
	if i := bytes.IndexAny(line, space); i >= 0 {
		return line[:i], line[i:]
	}
	return line, nil
}

// lookup finds a command by its name in any case, and with its second word if
// that is given. It allocates nothing.
func lookup(word, second []byte) respCommand {
	var upper [2*respWord + 1]byte
	n := len(word)
	if n > respWord || len(second) > respWord {
		return respCommand{}
	}
	copy(upper[:], word)
	if len(second) > 0 {
		upper[n] = ' '
		n += 1 + copy(upper[n+1:], second)
	}
	for i, c := range upper[:n] {
		if 'a' <= c && c <= 'z' {
			upper[i] = c - 'a' + 'A'
		}
	}
	return respCommands[string(upper[:n])]
}

// judge fills in what is to be known of the command c, given by its first words.
func (s *respScanner) judge(c respCommand, word, second []byte) {
	s.req = Request{Name: c.name}
	if c.class == classSubclass {
		c = lookup(word, second)
	}
	s.req.Safe, s.req.Blocks = c.class == classSafe, c.class == classBlocks
	switch {
	case c.class == classEndless:
		s.refuse = &Error{Fault: Unsupported, Reason: c.name + " has no single reply and cannot pass this gateway"}
	case c.class == classState && !s.f.pass:
		s.refuse = &Error{Fault: Unsupported, Reason: c.name + " changes the state of a connection, which this gateway does not keep"}
	case c.class == classQuit:
		s.req.Local, s.req.Last, s.req.Reply = true, true, "+OK\r\n"
	}
}
