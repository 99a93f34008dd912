-- What version 1 of the file held, with two messages. This never changes.
PRAGMA journal_mode = WAL;
CREATE TABLE queues (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    depth INTEGER NOT NULL DEFAULT 0,
    visibility_ms INTEGER NOT NULL,
    retention_ms INTEGER NOT NULL,
    dead_letter INTEGER,
    max_receives INTEGER
) STRICT;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue INTEGER NOT NULL,
    visible_at INTEGER NOT NULL,
    sent_at INTEGER NOT NULL,
    receive_count INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX messages_by_visibility ON messages (queue, visible_at);
CREATE TRIGGER message_added AFTER INSERT ON messages BEGIN
    UPDATE queues SET depth = depth + 1 WHERE id = NEW.queue;
END;
CREATE TRIGGER message_removed AFTER DELETE ON messages BEGIN
    UPDATE queues SET depth = depth - 1 WHERE id = OLD.queue;
END;
CREATE TRIGGER message_moved AFTER UPDATE OF queue ON messages BEGIN
    UPDATE queues SET depth = depth - 1 WHERE id = OLD.queue;
    UPDATE queues SET depth = depth + 1 WHERE id = NEW.queue;
END;
INSERT INTO queues (name, visibility_ms, retention_ms) VALUES ('dead', 30000, 9000000000000);
INSERT INTO queues (name, visibility_ms, retention_ms, dead_letter, max_receives)
    SELECT 'work', 600000, 9000000000000, id, 5 FROM queues;
INSERT INTO messages (queue, visible_at, sent_at, receive_count, body)
    SELECT id, 1700000000000, 1700000000000, 0, 'waiting' FROM queues WHERE name = 'work';
INSERT INTO messages (queue, visible_at, sent_at, receive_count, body)
    SELECT id, 1700000000001, 1700000000000, 2, 'returned' FROM queues WHERE name = 'work';
PRAGMA user_version = 1;
