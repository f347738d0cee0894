#!lua name=LIBRARY
-- The steps of the store contract in Redis and Valkey. Each function is one step on one stream, and is done completely or not at all.
-- src/store/redis.rs describes the keys; all keys of a call are in one hash slot, as they begin with the partition KEYS[1]. LIBRARY
-- stands for a name that differs for each content of this file.
--
-- Times are milliseconds since 1970. Epochs are 16 hexadecimal digits, because a number of Lua has only 53 bits.

-- Fields of the metadata of a stream that every step needs.
local FIELDS = {
  'epoch', 'ancestors', 'tail', 'earliest', 'messages', 'bytes', 'closed', 'closed_by', 'content_type', 'essence', 'lifetime',
  'retention', 'asked', 'used', 'sequence', 'deleted', 'depth', 'replication', 'producers', 'source', 'branch',
  'appended', 'origin', 'creator', 'tenant',
}
local NUMBERS = { 'tail', 'earliest', 'messages', 'bytes', 'used', 'depth', 'producers', 'branch', 'appended' }

-- Bounds of the work of one call.
local TRIM_MAX = 1000
local READ_MAX = 4096
local SWEEP_MAX = 100
local CREATORS_MAX = 200

-- Messages in news, in bytes at most.
local NEWS_BYTES_MAX = 16 * 1024

-- How long the readers of a gateway that tells nothing any more are remembered, in the time of the engine; longer than they count.
local WAITERS_KEPT = 10 * 60 * 1000

-- A producer that was idle this long is forgotten: a week.
local PRODUCER_IDLE_MAX = 7 * 24 * 3600 * 1000
local PRODUCERS_MAX = 10000

-- A stream remembers this many earlier epochs.
local ANCESTORS_MAX = 256

-- The keys of a partition, and those of a stream in it.
local OF_PARTITION = {
  streams = true, bytes = true, tenant_streams = true, tenant_bytes = true, over = true, names = true, due = true, dated = true,
  news = true, moves = true, every = true, buckets = true,
}

-- Each key is made when it is first used.
local KEYS_OF_STREAM = {
  __index = function(keys, kind)
    local key = keys.partition .. kind
    if not OF_PARTITION[kind] then key = key .. ':' .. keys.name end
    keys[kind] = key
    return key
  end,
}

local function keys_of(partition, name)
  return setmetatable({ partition = partition, name = name, heard = false }, KEYS_OF_STREAM)
end

-- Loads the metadata of a stream, with a further field of it.
local function load(keys, further)
  local values = redis.call('HMGET', keys.meta, further or 'epoch', unpack(FIELDS))
  if not values[2] then return nil end
  local stream = { further = values[1] }
  for i = 1, #FIELDS do stream[FIELDS[i]] = values[i + 1] or '' end
  for i = 1, #NUMBERS do stream[NUMBERS[i]] = tonumber(stream[NUMBERS[i]]) or 0 end
  stream.counted = stream.bytes
  return stream
end

local function integer(number) return string.format('%d', number) end

local function store(keys, stream, ...)
  local fields, changed = { ... }, {}
  for i = 1, #fields do
    local value = stream[fields[i]]
    changed[2 * i - 1], changed[2 * i] = fields[i], type(value) == 'number' and integer(value) or value
  end
  redis.call('HSET', keys.meta, unpack(changed))
end

-- Adds to what a principal or a tenant has in the partition: the streams that it has created, or the bytes of their messages. Those of the
-- gateways themselves, and those of no tenant, are not counted.
local function count(key, whose, added)
  if whose == '' or added == 0 then return end
  if tonumber(redis.call('ZINCRBY', key, integer(added), whose)) <= 0 then redis.call('ZREM', key, whose) end
end

-- Counts a stream more or less.
local function count_stream(keys, stream, added)
  count(keys.streams, stream.creator, added)
  count(keys.tenant_streams, stream.tenant, added)
end

-- Counts the bytes that a stream has more or less since the last time, or none any more.
local function count_bytes(keys, stream, bytes)
  count(keys.bytes, stream.creator, bytes - stream.counted)
  count(keys.tenant_bytes, stream.tenant, bytes - stream.counted)
  stream.counted = bytes
end

-- Whether the last sweep has found that a principal or a tenant has used up its 'streams' or 'bytes' of all partitions, or all are used up.
local function is_over(keys, kind, whose)
  return whose ~= '' and redis.call('SISMEMBER', keys.over, kind .. ' ' .. whose) == 1
end

-- The tenant that a stream belongs to by its name, as src/stream/tenant.rs has it; '' if it is the default one.
local function tenant_of(name)
  return string.match(name, '^$tenant/([^/]*)/') or ''
end

-- Identifies one history of the engine: it changes when a replica is promoted, which may lack the last appends. INFO takes a tenth of the time
-- of an append, so a primary asks once and remembers the answer as long as it has the library (a script asks whenever it needs it).
-- That is safe, as a primary that was replaced by a replica loses its own appends only by taking over all data of another one, and with these
-- it takes over the library anew. If it lacks none, it may go on with its earlier answer once it is promoted again.
local history = nil
local function replication()
  if history then return history end
  local info = redis.call('INFO', 'replication')
  local id = string.match(info, 'master_replid:(%x+)') or ''
  if string.find(info, 'role:master', 1, true) then history = id end
  return id
end

-- A new epoch: the time in microseconds, and 12 bits of the history, as two histories may count the same time. It is greater than all
-- earlier ones, as a call takes longer than a microsecond.
local function new_epoch()
  local time = redis.call('TIME')
  local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
  return string.format('%013x', micros) .. string.sub(replication() .. '000', 1, 3)
end

-- The metadata in an answer, as lines.
local function head(stream)
  return table.concat({
    stream.epoch, stream.ancestors, integer(stream.tail), integer(stream.earliest), stream.closed, stream.content_type,
    stream.lifetime, stream.retention, integer(stream.messages > 0 and stream.appended or 0),
  }, '\n')
end

-- The channels on which somebody hears changes of a stream, asked for once a call: a gateway with readers of it subscribes to a bucket of
-- the streams of its partition, and one with subscribers by wildcard to the channel `every`. Gateways of earlier versions, which do not
-- subscribe to `buckets`, hear all changes on `moves`, and still earlier ones only their lines on `news`.
local function heard(keys)
  if keys.heard then return keys.heard end
  local bucket = keys.moves .. ':' .. string.sub(redis.sha1hex(keys.name), 1, 2)
  local counts = redis.pcall('PUBSUB', 'SHARDNUMSUB', bucket, keys.every, keys.buckets, keys.moves, keys.news)
  local all = counts.err ~= nil
  local channels = { has_lines = all or counts[10] > counts[8] }
  if all or counts[2] > 0 then table.insert(channels, bucket) end
  if all or counts[4] > 0 then table.insert(channels, keys.every) end
  if all or counts[8] > counts[6] then table.insert(channels, keys.moves) end
  keys.heard = channels
  return keys.heard
end

-- Adds a record to what the news of this call will have: as XRANGE returns it, in the encoding of the engine's answers (RESP).
local function note_record(keys, stream, id, header, record)
  if #heard(keys) == 0 then return end
  local noted = stream.noted or { bytes = 0 }
  stream.noted, noted.bytes = noted, noted.bytes + #record.data + #record.ends + #record.annotation
  if noted.bytes > NEWS_BYTES_MAX then return end
  local fields, further = 4, ''
  if record.ends ~= '' then
    fields, further = 6, string.format('$1\r\nx\r\n$%d\r\n', #record.ends) .. record.ends .. '\r\n'
  end
  if record.annotation ~= '' then
    fields = fields + 2
    further = further .. string.format('$1\r\na\r\n$%d\r\n', #record.annotation) .. record.annotation .. '\r\n'
  end
  noted[#noted + 1] = string.format('*2\r\n$%d\r\n%s\r\n*%d\r\n$1\r\nd\r\n$%d\r\n', #id, id, fields, #record.data)
    .. record.data .. string.format('\r\n$1\r\nh\r\n$%d\r\n%s\r\n', #header, header) .. further
end

-- Tells the gateways that hear of the stream that its tail has moved: lines with the earliest position, the epoch, the tail before and
-- after, whether the stream is closed, and the name, then the records between the two tails, as XRANGE returns them, if they are few. The
-- news of a removed stream have an empty epoch, and no first line.
local function announce(keys, stream, before)
  local channels = heard(keys)
  if #channels == 0 and not channels.has_lines then return end
  local lines = stream.epoch .. '\n' .. integer(before) .. '\n' .. integer(stream.tail) .. '\n' .. stream.closed .. '\n' .. keys.name
  local noted, records = stream.noted, ''
  if noted and before < stream.tail and noted.bytes <= NEWS_BYTES_MAX then
    records = '*' .. #noted .. '\r\n' .. table.concat(noted)
  end
  for i = 1, #channels do
    redis.call('SPUBLISH', channels[i], integer(stream.earliest) .. '\n' .. lines .. '\n' .. records)
  end
  if channels.has_lines then redis.call('SPUBLISH', keys.news, lines) end
end

local function has_ended(keys, stream, now, wall)
  local kind, time = string.sub(stream.lifetime, 1, 1), tonumber(string.sub(stream.lifetime, 2))
  if kind == 'd' then return time <= wall end
  if kind ~= 'i' or stream.used + time > now then return false end
  for _, until_time in ipairs(redis.call('HVALS', keys.waiters)) do
    if tonumber(until_time) > now then return false end
  end
  return true
end

-- Tells all gateways that there is a new record of a gateway, whose name begins with NUL, or that one has ended.
local function tell_record(namespace, what, session)
  if string.byte(session) == 0 then redis.call('SPUBLISH', namespace .. 'news', what .. '\n' .. session) end
end

-- The session with the origin of a stream, which is in the partition of the stream.
local function origin_session(name) return '\0origin/' .. name end

-- Removes the origin of a stream, with its owner.
local function remove_origin(keys)
  local session = origin_session(keys.name)
  redis.call('DEL', keys.partition .. 'session:' .. session)
  redis.call('HDEL', keys.partition .. 'owners', session)
  redis.call('ZREM', keys.partition .. 'awaited', session)
  if redis.call('ZREM', keys.partition .. 'sessions', session) == 1 then tell_record(keys.partition, 'gone', session) end
end

-- Removes a stream and its origin. While it has forks, its name stays taken. Returns the source to release, or ''.
local function remove(keys, stream)
  if stream.origin == '1' then remove_origin(keys) end
  count_stream(keys, stream, -1)
  count_bytes(keys, stream, 0)
  redis.call('DEL', keys.log, keys.retained)
  redis.call('ZREM', keys.names, keys.name)
  redis.call('ZREM', keys.due, keys.name)
  redis.call('ZREM', keys.dated, keys.name)
  redis.call('SPUBLISH', keys.news, '\n0\n0\n\n' .. keys.name)
  if redis.call('SCARD', keys.forks) > 0 then
    redis.call('DEL', keys.meta)
    redis.call('HSET', keys.meta, 'epoch', stream.epoch, 'deleted', '1', 'tail', integer(stream.tail), 'source', stream.source)
    return ''
  end
  redis.call('DEL', keys.meta, keys.forks)
  return stream.source
end

-- Continues in a new epoch if the engine may have lost appends since the last one: offsets beyond the tail are then refused for ever.
local function follow_replication(keys, stream)
  if stream.replication == replication() then return end
  -- The answer that is remembered may be of before a promotion that the library of another version has noticed.
  history = nil
  local current = replication()
  if stream.replication == current then return end
  -- The tail has the epoch of the appends before it, not that of a run without appends.
  local ancestors, epoch_of_tail = {}, nil
  for epoch, position in string.gmatch(stream.ancestors, '(%x+):(%d+)') do
    if tonumber(position) < stream.tail then
      ancestors[#ancestors + 1] = epoch .. ':' .. position
    else
      epoch_of_tail = epoch_of_tail or epoch
    end
  end
  ancestors[#ancestors + 1] = (epoch_of_tail or stream.epoch) .. ':' .. integer(stream.tail)
  while #ancestors > ANCESTORS_MAX do table.remove(ancestors, 1) end
  stream.ancestors, stream.epoch, stream.replication = table.concat(ancestors, ','), new_epoch(), current
  store(keys, stream, 'ancestors', 'epoch', 'replication')
end

-- Notes a use of a stream, from which an idle lifetime counts.
local function use(keys, stream, now)
  if string.sub(stream.lifetime, 1, 1) == 'i' then redis.call('HSET', keys.meta, 'used', integer(now)) end
end

-- Finds a live stream, which may be loaded already. Returns it, or nil with the reason, and of an expired stream the source that the
-- caller has to release.
local function find(keys, now, wall, loaded)
  local stream = loaded or load(keys)
  if not stream then return nil, { 'missing' } end
  if stream.deleted == '1' then return nil, { 'deleted' } end
  if has_ended(keys, stream, now, wall) then return nil, { 'missing', remove(keys, stream), 'ended' } end
  return stream
end

-- One record of the log. `kind` is j for JSON values and m for one message.
local function record_of(entry)
  local record = { id = entry[1], start = tonumber(string.match(entry[1], '%-(%d+)')) - 1 }
  local fields = entry[2]
  for i = 1, #fields, 2 do record[fields[i]] = fields[i + 1] end
  local kind, positions, at = string.match(record.h, '(%a):(%d+):(%d+)')
  record.kind, record.positions, record.at = kind, tonumber(positions), tonumber(at)
  return record
end

-- The bytes before the position `from` of a record.
local function start_of(record, from)
  local length = #record.d
  if from == 0 then return 0 end
  if record.kind ~= 'j' then return math.min(from, length) end
  if not record.x or from * 4 > #record.x then return length end
  return math.min(struct.unpack('<I4', record.x, 4 * from - 3) + 1, length)
end

-- Removes the oldest messages until the retention holds.
local function trim(keys, stream, now)
  if stream.retention == ',,' then return end
  local messages_max, bytes_max, age_max = string.match(stream.retention, '^(%d*),(%d*),(%d*)$')
  messages_max, bytes_max, age_max = tonumber(messages_max), tonumber(bytes_max), tonumber(age_max)
  local trimmed = false
  for _ = 1, TRIM_MAX do
    local messages_over = messages_max and stream.messages - messages_max or 0
    local bytes_over = bytes_max and stream.bytes > bytes_max
    if messages_over <= 0 and not bytes_over and not age_max then break end
    local entry = redis.call('XRANGE', keys.log, '-', '+', 'COUNT', 1)[1]
    if not entry then break end
    local record = record_of(entry)
    local skipped = stream.earliest - record.start
    local rest = record.positions - skipped
    local is_last = record.start + record.positions == stream.tail
    local one_by_one = record.kind == 'j'
    local step
    if (age_max and now - record.at > age_max) or (bytes_over and not is_last) then step = rest
    elseif messages_over > 0 and one_by_one then step = math.min(rest, messages_over)
    elseif messages_over > 0 and not is_last then step = rest
    else break end
    stream.bytes = stream.bytes - (start_of(record, skipped + step) - start_of(record, skipped))
    stream.messages = stream.messages - (one_by_one and step or 1)
    stream.earliest = stream.earliest + step
    if step == rest then redis.call('XDEL', keys.log, record.id) end
    trimmed = true
  end
  if not trimmed then return end
  store(keys, stream, 'bytes', 'messages', 'earliest')
  count_bytes(keys, stream, stream.bytes)
end

-- When the sweep has to visit the stream, in the time of ages and in the time of day; nil if never.
local function schedule(keys, stream, now)
  local age_max = tonumber(string.match(stream.retention, ',(%d*)$'))
  local kind, time = string.sub(stream.lifetime, 1, 1), tonumber(string.sub(stream.lifetime, 2))
  local due = kind == 'i' and stream.used + time or nil
  if age_max then
    local entry = redis.call('XRANGE', keys.log, '-', '+', 'COUNT', 1)[1]
    local aged = (entry and record_of(entry).at or now) + age_max + 1
    due = due and math.min(due, aged) or aged
  end
  if due then redis.call('ZADD', keys.due, integer(math.max(due, now)), keys.name) end
  if kind == 'd' then redis.call('ZADD', keys.dated, integer(time), keys.name) end
end

-- Adds a record at the tail. Fields: data, kind, positions, messages, ends, annotation, and how it changes the retained message.
local function push(keys, stream, record, now)
  if record.positions == 0 then return end
  local header = record.kind .. ':' .. integer(record.positions) .. ':' .. integer(now)
  local entry = { 'd', record.data, 'h', header }
  if record.ends ~= '' then entry[#entry + 1] = 'x'; entry[#entry + 1] = record.ends end
  if record.annotation ~= '' then entry[#entry + 1] = 'a'; entry[#entry + 1] = record.annotation end
  local id = '0-' .. integer(stream.tail + 1)
  redis.call('XADD', keys.log, id, unpack(entry))
  note_record(keys, stream, id, header, record)
  if record.retain == 'keep' then
    redis.call('DEL', keys.retained)
    redis.call('HSET', keys.retained, 'start', integer(stream.tail), unpack(entry))
  elseif record.retain == 'clear' then
    redis.call('DEL', keys.retained)
  end
  stream.tail = stream.tail + record.positions
  stream.messages = stream.messages + record.messages
  stream.bytes = stream.bytes + #record.data
  stream.appended = now
end

local function record_from(args, at)
  return {
    data = args[at], kind = args[at + 1], positions = tonumber(args[at + 2]), messages = tonumber(args[at + 3]),
    ends = args[at + 4], annotation = args[at + 5], retain = args[at + 6],
  }
end

-- Checks the producer of an append. Returns nil and how many producers a new append adds, or why the append is not new.
local function check_producer(keys, append, now)
  local known = redis.call('HGET', keys.meta, 'p:' .. append.producer)
  local epoch, last, seen
  if known then epoch, last, seen = string.match(known, '^(%d+):(%d+):(%d+)') end
  if not known or now - tonumber(seen) >= PRODUCER_IDLE_MAX then
    if append.producer_sequence ~= 0 then return { 'gap', '0', integer(append.producer_sequence) } end
    return nil, known and 0 or 1
  end
  epoch, last = tonumber(epoch), tonumber(last)
  if append.producer_epoch < epoch then return { 'stale', integer(epoch) } end
  if append.producer_epoch > epoch then
    if append.producer_sequence == 0 then return nil, 0 end
    return { 'not_from_zero' }
  end
  if append.producer_sequence <= last then return { 'duplicate', integer(last) } end
  if append.producer_sequence == last + 1 then return nil, 0 end
  return { 'gap', integer(last + 1), integer(append.producer_sequence) }
end

-- The rules of stream::Writers::admit, in their order. Returns nil for a new append, and how many producers it adds.
local function admit(keys, stream, append, now)
  if stream.closed == '1' then
    local author = append.producer ~= '' and append.author or ''
    local is_retry = author ~= '' and author == stream.closed_by
    if is_retry or (append.closes and append.record.positions == 0 and append.producer == '') then
      return { 'duplicate', append.producer ~= '' and integer(append.producer_sequence) or '' }
    end
    return { 'closed' }
  end
  if append.record.positions > 0 then
    local is_json = stream.essence == 'application/json'
    local fits = append.mode == 'declared' and append.essence == stream.essence
      or append.mode == 'stream' and (append.record.kind == 'j') == is_json
    if not fits then return { append.mode == 'stream' and 'split' or 'content_type' } end
  end
  local added = 0
  if append.producer ~= '' then
    local answer, new = check_producer(keys, append, now)
    if answer then return answer end
    if new > 0 and stream.producers >= PRODUCERS_MAX then return { 'too_many_producers' } end
    added = new
  end
  if append.sequence ~= '' and stream.sequence ~= '' and append.sequence <= stream.sequence then return { 'sequence' } end
  return nil, added
end

local function new_stream(keys, args, now)
  return {
    epoch = new_epoch(), ancestors = '', tail = 0, earliest = 0, messages = 0, bytes = 0, closed = '', closed_by = '',
    content_type = args.content_type, essence = args.essence, lifetime = args.lifetime, retention = args.retention,
    asked = args.asked, used = now, sequence = '', deleted = '', depth = 0, replication = replication(),
    producers = 0, source = '', branch = 0, appended = 0, origin = '', creator = args.creator, counted = 0,
    tenant = tenant_of(keys.name),
  }
end

local function insert(keys, stream, now)
  store(keys, stream, unpack(FIELDS))
  redis.call('ZADD', keys.names, 0, keys.name)
  count_stream(keys, stream, 1)
  count_bytes(keys, stream, stream.bytes)
  schedule(keys, stream, now)
end

-- Why a principal may not create a stream; nil if it may.
local function refused_creation(keys, creator)
  if is_over(keys, 'streams', '*') then return 'too_many_streams' end
  if is_over(keys, 'tenant_streams', tenant_of(keys.name)) then return 'too_many_streams_of_tenant' end
  if is_over(keys, 'streams', creator) then return 'too_many_own_streams' end
  return nil
end

local APPEND_FIELDS = 21

local function append_from(args, at)
  local append = {
    mode = args[at], essence = args[at + 1], record = record_from(args, at + 2), producer = args[at + 9],
    producer_epoch = tonumber(args[at + 10]), producer_sequence = tonumber(args[at + 11]), sequence = args[at + 12],
    closes = args[at + 13] == '1', creates = args[at + 14] == '1',
    create = {
      content_type = args[at + 15], essence = args[at + 16], lifetime = args[at + 17], retention = args[at + 18],
      asked = args[at + 19], creator = args[at + 20],
    },
  }
  append.author = append.producer .. ':' .. args[at + 10] .. ':' .. args[at + 11]
  return append
end

-- Why no messages may be added to a stream of a principal; nil if they may.
local function refused_bytes(keys, creator, tenant)
  if is_over(keys, 'bytes', creator) then return 'share_used_up' end
  if is_over(keys, 'tenant_bytes', tenant) then return 'tenant_full' end
  return nil
end

-- The metadata in a verdict on an append: all of it in the first of a call, and in the others what differs, tail and closed.
local function differing_head(stream, batch)
  if batch.has_head then return integer(stream.tail) .. '\n' .. stream.closed end
  batch.has_head = true
  return head(stream)
end

-- Does one append of a call. Its verdict has the tail, which the engine does not send, if it has the metadata. What the appends have in common is in `batch`: the stream, which is loaded for the first of them and stored
-- after the last, whether one of them has created it, and its tail before the first that is new. `by_origin`: it is made for the origin of
-- the stream, and nobody else appends to a stream that has one. Returns its verdict: its kind, the metadata, two details of a refusal,
-- and the source to release and 'ended' if the former stream of this name was found expired.
local function append_one(keys, append, by_origin, now, wall, batch)
  local stream, missing = batch.stream, nil
  if not stream then stream, missing = find(keys, now, wall, batch.loaded) end
  batch.loaded = nil
  local created, source, ended = false, missing and missing[2] or '', missing and missing[3] or ''
  if stream then
    if by_origin and stream.origin ~= '1' then return { 'superseded' } end
    if stream.origin == '1' and not by_origin then return { 'has_origin', differing_head(stream, batch), tail = stream.tail } end
    follow_replication(keys, stream)
    batch.stream = stream
  else
    if not append.creates or missing[1] ~= 'missing' then return missing end
    local refused = refused_creation(keys, append.create.creator)
    if refused then return { refused, '', '', '', source, ended } end
    stream, created = new_stream(keys, append.create, now), true
    stream.origin = by_origin and '1' or ''
  end
  local refusal, added = admit(keys, stream, append, now)
  if refusal then
    if refusal[1] == 'duplicate' and not created then use(keys, stream, now) end
    return { refusal[1], differing_head(stream, batch), refusal[2] or '', refusal[3] or '', source, ended, tail = stream.tail }
  end
  local refused = append.record.positions > 0 and refused_bytes(keys, stream.creator, stream.tenant)
  if refused then return { refused, '', '', '', source, ended } end
  batch.stream, batch.created, batch.before = stream, batch.created or created, batch.before or stream.tail
  push(keys, stream, append.record, now)
  batch.changes_more = batch.changes_more or append.closes or append.sequence ~= '' or added > 0
  if append.closes then
    stream.closed = '1'
    stream.closed_by = append.producer ~= '' and append.author or ''
  end
  if append.sequence ~= '' then stream.sequence = append.sequence end
  stream.producers = stream.producers + added
  stream.used = now
  if append.producer ~= '' then
    redis.call('HSET', keys.meta, 'p:' .. append.producer,
      integer(append.producer_epoch) .. ':' .. integer(append.producer_sequence) .. ':' .. integer(now))
  end
  return { created and 'created' or 'new', differing_head(stream, batch), '', '', source, ended, tail = stream.tail }
end

-- Stores what the appends of a call have changed, with what is kept of the call in the field `last_call`, and tells all gateways once.
local function finish_appends(keys, batch, now, last_call, kept)
  local stream = batch.stream
  stream[last_call] = kept
  if batch.created then
    insert(keys, stream, now)
    store(keys, stream, last_call)
  elseif batch.changes_more then
    store(keys, stream, 'tail', 'messages', 'bytes', 'used', 'appended', last_call, 'closed', 'closed_by', 'sequence', 'producers')
  else
    store(keys, stream, 'tail', 'messages', 'bytes', 'used', 'appended', last_call)
  end
  trim(keys, stream, now)
  count_bytes(keys, stream, stream.bytes)
  announce(keys, stream, batch.before)
end

-- Makes a change of a session, which begins at args[at]: the client, the owner that makes it or '', whether the session begins anew, then
-- key, '1' with a value or '0' with '' for each entry, up to args[last].
local function apply_session(namespace, args, at, last)
  local key = namespace .. 'session:' .. args[at]
  if args[at + 2] == '1' then redis.call('DEL', key) end
  for i = at + 3, last, 3 do
    if args[i + 1] == '1' then redis.call('HSET', key, args[i], args[i + 2]) else redis.call('HDEL', key, args[i]) end
  end
  if redis.call('EXISTS', key) == 1 then
    if redis.call('ZADD', namespace .. 'sessions', 0, args[at]) == 1 then tell_record(namespace, 'known', args[at]) end
  else
    if redis.call('ZREM', namespace .. 'sessions', args[at]) == 1 then tell_record(namespace, 'gone', args[at]) end
    redis.call('ZREM', namespace .. 'awaited', args[at])
  end
end

-- Whether `owner` may change a session; '' may if there is no owner.
local function may_change(namespace, client, owner)
  return (redis.call('HGET', namespace .. 'owners', client) or '') == owner
end

-- Appends of one gateway to one stream. A call whose answer was lost is sent again with the same id, and does nothing then: of each
-- verdict, the kind, the tail and the details are kept until the next call of the gateway. A new append changes a session with it, unless
-- that has another owner. ARGV: name, now, wall, gateway, id, then for each append its fields, and how many arguments follow for a
-- session: its namespace and the change.
local function append(partition, args)
  local keys = keys_of(partition[1], args[1])
  local now, wall, last_call = tonumber(args[2]), tonumber(args[3]), 'g:' .. args[4]
  local stream = load(keys, last_call)
  local id, told = string.match(stream and stream.further or '', '^(%d+) (.*)$')
  if id == args[5] then
    local verdicts, batch = cmsgpack.unpack(told), {}
    for _, verdict in ipairs(verdicts) do
      if type(verdict[2]) == 'number' then
        stream.tail = verdict[2]
        verdict[2] = differing_head(stream, batch)
      end
    end
    return verdicts
  end
  local verdicts, kept, batch = {}, {}, { loaded = stream }
  local at = 6
  while at <= #args do
    local session, verdict = at + APPEND_FIELDS + 1, nil
    local last = session - 1 + tonumber(args[session - 1])
    local by_origin = last >= session and args[session + 1] == origin_session(args[1])
    if last >= session and not may_change(args[session], args[session + 1], args[session + 2]) then
      verdict = { 'superseded' }
    else
      verdict = append_one(keys, append_from(args, at), by_origin, now, wall, batch)
    end
    if verdict[1] == 'new' or verdict[1] == 'created' then
      if last >= session then apply_session(args[session], args, session + 1, last) end
      -- A former origin of the name may have expired in this call, with its owner.
      if by_origin then redis.call('HSET', args[session] .. 'owners', args[session + 1], args[session + 2]) end
    end
    at = last + 1
    verdicts[#verdicts + 1] = verdict
    kept[#kept + 1] = { verdict[1], verdict.tail or verdict[2], unpack(verdict, 3) }
  end
  if batch.before then
    finish_appends(keys, batch, now, last_call, args[5] .. ' ' .. cmsgpack.pack(kept))
  end
  return verdicts
end

-- Creates a stream, or finds that it exists. ARGV: name, now, wall, content type, essence, lifetime, retention, asked, creator, closed,
-- sequence, depth, source and branch of a fork, ancestors, start of the log, number of records, then 8 fields for each record and two
-- for each producer.
local function create(partition, args)
  local keys = keys_of(partition[1], args[1])
  local now, wall = tonumber(args[2]), tonumber(args[3])
  local asked = { content_type = args[4], essence = args[5], lifetime = args[6], retention = args[7], asked = args[8] }
  asked.creator = args[9]
  local closes = args[10] == '1'
  local stream, missing = find(keys, now, wall)
  if stream then
    local is_same = stream.essence == asked.essence and stream.asked == asked.asked and (stream.closed == '1') == closes
      and stream.origin == ''
    if not is_same then return { 'differs' } end
    use(keys, stream, now)
    return { 'exists', head(stream) }
  end
  if missing[1] == 'deleted' then return { 'taken' } end
  local refused = refused_creation(keys, asked.creator)
  if not refused and tonumber(args[17]) > 0 then refused = refused_bytes(keys, asked.creator, tenant_of(keys.name)) end
  if refused then return { refused, '', missing[2] or '', missing[3] or '' } end
  stream = new_stream(keys, asked, now)
  stream.sequence, stream.depth, stream.source, stream.branch = args[11], tonumber(args[12]), args[13], tonumber(args[14])
  stream.ancestors, stream.tail = args[15], tonumber(args[16])
  stream.earliest = stream.tail
  local at = 18
  for _ = 1, tonumber(args[17]) do
    push(keys, stream, record_from(args, at), tonumber(args[at + 7]))
    at = at + 8
  end
  for index = at, #args, 2 do
    redis.call('HSET', keys.meta, 'p:' .. args[index], args[index + 1])
    stream.producers = stream.producers + 1
  end
  if closes then stream.closed = '1' end
  insert(keys, stream, now)
  trim(keys, stream, now)
  announce(keys, stream, stream.tail)
  return { 'fresh', head(stream), missing[2] or '', missing[3] or '' }
end

-- Reads records from a position on. ARGV: name, now, wall, start ('earliest', 'tail' or a position), bytes and records at most, of which
-- at least one is returned, and whether this is a use of the stream.
local function read(partition, args)
  local keys = keys_of(partition[1], args[1])
  local now, wall = tonumber(args[2]), tonumber(args[3])
  local stream, missing = find(keys, now, wall)
  if not stream then return missing end
  trim(keys, stream, now)
  if args[7] == '1' then use(keys, stream, now) end
  local from = args[4] == 'earliest' and stream.earliest or args[4] == 'tail' and stream.tail or tonumber(args[4])
  -- An offset beyond the tail may be of an append that the engine has lost.
  if from > stream.tail then follow_replication(keys, stream) end
  local records, records_max = {}, math.min(tonumber(args[6]), READ_MAX)
  if from >= stream.earliest and from < stream.tail then
    local first = redis.call('XREVRANGE', keys.log, '0-' .. integer(from + 1), '-', 'COUNT', 1)[1]
    local next_id, bytes, bytes_max = first and first[1] or '0-' .. integer(from + 1), 0, tonumber(args[5])
    while bytes <= bytes_max and #records < records_max do
      local page = redis.call('XRANGE', keys.log, next_id, '+', 'COUNT', 16)
      for _, entry in ipairs(page) do
        if bytes > bytes_max or #records == records_max then break end
        records[#records + 1] = entry
        bytes = bytes + math.max(#record_of(entry).d, 1)
      end
      if #page < 16 then break end
      next_id = '(' .. page[#page][1]
    end
  end
  return { 'found', head(stream), records }
end

-- Describes a stream. ARGV: name, now, wall, whether the writers are wanted.
local function describe(partition, args)
  local keys = keys_of(partition[1], args[1])
  local now, wall = tonumber(args[2]), tonumber(args[3])
  local stream, missing = find(keys, now, wall)
  if not stream then return missing end
  trim(keys, stream, now)
  local producers = {}
  if args[4] == '1' then
    local fields = redis.call('HGETALL', keys.meta)
    for i = 1, #fields, 2 do
      if string.sub(fields[i], 1, 2) == 'p:' then
        producers[#producers + 1] = string.sub(fields[i], 3)
        producers[#producers + 1] = fields[i + 1]
      end
    end
  end
  return {
    'found', head(stream), stream.source, integer(stream.branch), integer(stream.depth), redis.call('SCARD', keys.forks),
    stream.sequence, stream.closed_by, producers, stream.origin,
  }
end

-- The retained message. ARGV: name, now, wall, whether it is cleared.
local function retained(partition, args)
  local keys = keys_of(partition[1], args[1])
  local now, wall = tonumber(args[2]), tonumber(args[3])
  local stream, missing = find(keys, now, wall)
  if not stream then return missing end
  use(keys, stream, now)
  if args[4] == '1' then redis.call('DEL', keys.retained) end
  return { 'found', head(stream), redis.call('HGETALL', keys.retained) }
end

-- Deletes a stream. ARGV: name, now, wall.
local function delete(partition, args)
  local keys = keys_of(partition[1], args[1])
  local stream, missing = find(keys, tonumber(args[2]), tonumber(args[3]))
  if not stream then return missing end
  return { 'found', remove(keys, stream) }
end

-- Counts a fork of a stream, so that its name stays taken, or forgets it. ARGV: name, fork, 'add' or 'remove', now, wall.
local function fork(partition, args)
  local keys = keys_of(partition[1], args[1])
  if args[3] == 'add' then
    local stream, missing = find(keys, tonumber(args[4]), tonumber(args[5]))
    if not stream then return missing end
    redis.call('SADD', keys.forks, args[2])
    use(keys, stream, tonumber(args[4]))
    return { 'found', head(stream), integer(stream.depth) }
  end
  redis.call('SREM', keys.forks, args[2])
  local stream = load(keys)
  if stream and stream.deleted == '1' and redis.call('SCARD', keys.forks) == 0 then
    redis.call('DEL', keys.meta, keys.forks)
    return { 'removed', stream.source }
  end
  return { 'kept' }
end

-- Keeps an idle stream alive while a gateway has readers of it. ARGV: name, gateway, until, or 0 to end that at `now`, now.
local function wait(partition, args)
  local keys = keys_of(partition[1], args[1])
  local lifetime = redis.call('HGET', keys.meta, 'lifetime')
  if not lifetime or string.sub(lifetime, 1, 1) ~= 'i' then return 0 end
  if args[3] == '0' then
    redis.call('HDEL', keys.waiters, args[2])
    redis.call('HSET', keys.meta, 'used', args[4])
  else
    redis.call('HSET', keys.waiters, args[2], args[3])
    -- Those of gateways that were killed go with the last one.
    redis.call('PEXPIRE', keys.waiters, WAITERS_KEPT)
  end
  return 1
end

-- The streams of a partition whose names begin with a prefix, from a name on. ARGV: the least name, which is excluded if it begins
-- with '(', the prefix, how many at most, now, wall.
local function list(partition, args)
  local names_key = partition[1] .. 'names'
  local max = tonumber(args[3])
  local names = redis.call('ZRANGEBYLEX', names_key, args[1], '+', 'LIMIT', 0, max)
  local found, last = {}, ''
  for _, name in ipairs(names) do
    if string.sub(name, 1, #args[2]) ~= args[2] then return { found, '' } end
    local keys = keys_of(partition[1], name)
    local stream = load(keys)
    if stream and stream.deleted ~= '1' and not has_ended(keys, stream, tonumber(args[4]), tonumber(args[5])) then
      found[#found + 1] = { name, head(stream) }
    else
      found[#found + 1] = { name }
    end
    last = name
  end
  if #names < max then last = '' end
  return { found, last }
end

-- The lease of the gateway that sweeps: its run and the number of the lease, which grows from one holder to the next.
local function holder_of(namespace)
  return string.match(redis.call('GET', namespace .. 'lease') or '', '^(.*) (%d+)$')
end

-- Makes a run of a gateway the one that sweeps, or lets it go on, unless another gateway does. Returns the number of its lease, or '0'. ARGV:
-- run, gateway, milliseconds of the lease, 0 to end it.
local function lease(namespace, args)
  local holder, number = holder_of(namespace[1])
  if holder and holder ~= args[1] and string.match(holder, '^(.*)~') ~= args[2] then return '0' end
  if args[3] == '0' then
    if holder == args[1] then redis.call('DEL', namespace[1] .. 'lease') end
    return '0'
  end
  if holder ~= args[1] then
    local time = redis.call('TIME')
    number = integer(math.max(tonumber(time[1]) * 1000000 + tonumber(time[2]), (tonumber(number) or 0) + 1))
  end
  redis.call('SET', namespace[1] .. 'lease', args[1] .. ' ' .. number, 'PX', args[3])
  return number
end

-- Forgets runs of gateways that are still silent, if the lease has not passed to another gateway. ARGV: the number of the lease, the time
-- before which they were last alive, the runs.
local function forget_runs(namespace, args)
  local _, number = holder_of(namespace[1])
  if number ~= args[1] then return 'superseded' end
  for i = 3, #args do
    local alive = redis.call('ZSCORE', namespace[1] .. 'runs', args[i])
    if alive and tonumber(alive) <= tonumber(args[2]) then redis.call('ZREM', namespace[1] .. 'runs', args[i]) end
  end
  return 'forgotten'
end

-- Whether no gateway with a later lease has swept the partition.
local function may_sweep(partition, number)
  local last = tonumber(redis.call('GET', partition .. 'lease')) or 0
  if number < last then return false end
  if number > last then redis.call('SET', partition .. 'lease', integer(number)) end
  return true
end

-- The sorted sets of a partition that count what principals and tenants have.
local ACCOUNTS = { 'streams', 'bytes', 'tenant_streams', 'tenant_bytes' }

-- Removes streams of a partition that have expired, and messages that are too old. Returns how many streams are left, and the ended
-- streams, each with the source that it releases, and principals and tenants that have at least so many streams or bytes here; nothing if the
-- lease has passed to another gateway. ARGV: now, wall, the number of the lease, these numbers in the order of ACCOUNTS, 'keep' or 'set', and
-- in the second case who has used up what.
local function sweep(partition, args)
  if not may_sweep(partition[1], tonumber(args[3])) then return {} end
  if args[8] == 'set' then
    redis.call('DEL', partition[1] .. 'over')
    if #args > 8 then redis.call('SADD', partition[1] .. 'over', unpack(args, 9)) end
  end
  local now, wall = tonumber(args[1]), tonumber(args[2])
  local ended = {}
  for _, agenda in ipairs({ { partition[1] .. 'due', now }, { partition[1] .. 'dated', wall } }) do
    local names = redis.call('ZRANGEBYSCORE', agenda[1], '-inf', integer(agenda[2]), 'LIMIT', 0, SWEEP_MAX)
    for _, name in ipairs(names) do
      local keys = keys_of(partition[1], name)
      local stream = load(keys)
      redis.call('ZREM', agenda[1], name)
      if stream and stream.deleted ~= '1' then
        if has_ended(keys, stream, now, wall) then
          ended[#ended + 1] = name
          ended[#ended + 1] = remove(keys, stream)
        else
          trim(keys, stream, now)
          schedule(keys, stream, now + 1000)
        end
      end
    end
  end
  local found = {}
  for index, account in ipairs(ACCOUNTS) do
    found[index] = redis.call('ZREVRANGEBYSCORE', partition[1] .. account, '+inf', args[3 + index], 'LIMIT', 0, CREATORS_MAX)
  end
  return { redis.call('ZCARD', partition[1] .. 'names'), ended, found }
end

-- What principals or tenants have in a partition. ARGV: for each an account of ACCOUNTS and whose it is.
local function usage(partition, args)
  local used = {}
  for i = 1, #args, 2 do used[#used + 1] = redis.call('ZSCORE', partition[1] .. args[i], args[i + 1]) or '0' end
  return used
end

-- Changes a session. ARGV: the change.
local function change_session(namespace, args)
  if not may_change(namespace[1], args[1], args[2]) then return 'superseded' end
  apply_session(namespace[1], args, 1, #args)
  return 'changed'
end

-- Tells the gateway that owns a session that another one wants it, or has it.
local function tell_owner(namespace, client, owner)
  redis.call('SPUBLISH', namespace .. 'news', 'wanted\n' .. owner .. '\n' .. client)
end

-- Makes a run of a gateway the owner of a session. ARGV: client, run, from whom: 'asked', 'anyone' or 'nobody', then runs that have ended.
local function claim(namespace, args)
  local owners, client, run = namespace[1] .. 'owners', args[1], args[2]
  local owner = redis.call('HGET', owners, client)
  local holder = owner and string.match(owner, '^(.*) %d+$')
  if holder and holder ~= run then
    local is_free = args[3] == 'anyone'
    for i = 4, #args do is_free = is_free or args[i] == holder end
    if is_free or args[3] == 'asked' then tell_owner(namespace[1], client, owner) end
    if not is_free then return { 'held', holder } end
  end
  owner = run .. ' ' .. redis.call('INCR', namespace[1] .. 'claims')
  redis.call('HSET', owners, client, owner)
  redis.call('ZREM', namespace[1] .. 'awaited', client)
  return { 'claimed', owner, redis.call('HGETALL', namespace[1] .. 'session:' .. client) }
end

-- Ends a claim. ARGV: client, owner, and when a gateway has to look at the session, or ''.
local function release(namespace, args)
  if not may_change(namespace[1], args[1], args[2]) then return 'superseded' end
  redis.call('HDEL', namespace[1] .. 'owners', args[1])
  if args[3] ~= '' and redis.call('EXISTS', namespace[1] .. 'session:' .. args[1]) == 1 then
    redis.call('ZADD', namespace[1] .. 'awaited', args[3], args[1])
  end
  return 'released'
end

-- Tells all gateways something about a session, which is not kept. ARGV: client, text.
local function tell(namespace, args)
  redis.call('SPUBLISH', namespace[1] .. 'news', 'told\n' .. args[1] .. '\n' .. args[2])
end

-- The owner of a session.
local function owner(namespace, args)
  return redis.call('HGET', namespace[1] .. 'owners', args[1])
end

-- The entries of a session.
local function entries(namespace, args)
  return redis.call('HGETALL', namespace[1] .. 'session:' .. args[1])
end

-- Sessions of a partition without an owner that are to be looked at now, and those of runs that have ended. ARGV: now, the runs.
local function orphans(namespace, args)
  local found = redis.call('ZRANGEBYSCORE', namespace[1] .. 'awaited', '-inf', args[1], 'LIMIT', 0, SWEEP_MAX)
  if #args == 1 then return { found, 0 } end
  local ended, count = {}, 0
  for i = 2, #args do ended[args[i]] = true end
  local owners = redis.call('HGETALL', namespace[1] .. 'owners')
  for i = 1, #owners, 2 do
    if ended[string.match(owners[i + 1], '^(.*) %d+$')] then
      count = count + 1
      if count <= SWEEP_MAX then found[#found + 1] = owners[i] end
    end
  end
  return { found, count }
end

-- Sessions in the order of their names. ARGV: the least name, how many at most.
local function sessions(namespace, args)
  local names = redis.call('ZRANGEBYLEX', namespace[1] .. 'sessions', args[1], '+', 'LIMIT', 0, tonumber(args[2]))
  local found = {}
  for _, name in ipairs(names) do
    found[#found + 1] = { name, redis.call('HGETALL', namespace[1] .. 'session:' .. name) }
  end
  return found
end

-- One line each, which functions.rs reads. What adds nothing may run while the memory of the engine is full.
redis.register_function('LIBRARY_append', append)
redis.register_function('LIBRARY_create', create)
redis.register_function{ function_name = 'LIBRARY_read', callback = read, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_describe', callback = describe, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_retained', callback = retained, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_delete', callback = delete, flags = { 'allow-oom' } }
redis.register_function('LIBRARY_fork', fork)
redis.register_function{ function_name = 'LIBRARY_wait', callback = wait, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_list', callback = list, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_sweep', callback = sweep, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_usage', callback = usage, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_lease', callback = lease, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_forget_runs', callback = forget_runs, flags = { 'allow-oom' } }
redis.register_function('LIBRARY_change_session', change_session)
redis.register_function{ function_name = 'LIBRARY_sessions', callback = sessions, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_claim', callback = claim, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_release', callback = release, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_tell', callback = tell, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_owner', callback = owner, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_entries', callback = entries, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'LIBRARY_orphans', callback = orphans, flags = { 'allow-oom' } }
