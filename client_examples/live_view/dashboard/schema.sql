-- Which camera with which model: what the page shows one of at a time.
CREATE TABLE line (
    key    INTEGER PRIMARY KEY,
    camera TEXT NOT NULL,
    model  TEXT NOT NULL,
    UNIQUE (camera, model)
);

-- The last results, each for itself.
CREATE TABLE result (
    key          INTEGER PRIMARY KEY,  -- in the order they were read
    id           TEXT NOT NULL UNIQUE,
    line         INTEGER NOT NULL REFERENCES line,
    at           INTEGER NOT NULL,  -- milliseconds since 1970
    outcome      TEXT NOT NULL,  -- pass, reject, uncertain or unanswered
    reason       TEXT NOT NULL,
    score        REAL,
    threshold    REAL,
    found        TEXT NOT NULL
);
CREATE INDEX result_of_line ON result (line);
CREATE INDEX result_to_look_at ON result (line) WHERE outcome IN ('reject', 'uncertain');

-- What is kept for half a year: counts and scores of a line within a span of seconds.
CREATE TABLE tally (
    line       INTEGER NOT NULL REFERENCES line,
    span       INTEGER NOT NULL,  -- seconds
    start      INTEGER NOT NULL,  -- seconds since 1970, a multiple of the span
    passed     INTEGER NOT NULL,
    rejected   INTEGER NOT NULL,
    uncertain  INTEGER NOT NULL,
    unanswered INTEGER NOT NULL,
    anomalous  INTEGER NOT NULL,
    lowest     REAL,  -- scores; NULL where there was none
    below      REAL,  -- the highest one below the threshold
    above      REAL,  -- the lowest one from the threshold on
    highest    REAL,
    threshold  REAL,  -- the last one
    PRIMARY KEY (line, span, start)
) WITHOUT ROWID;

-- How far each file of results has been read. It changes together with what was read, so that nothing counts twice.
CREATE TABLE piece (
    key       INTEGER PRIMARY KEY,
    path      TEXT NOT NULL,
    beginning BLOB NOT NULL,
    position  INTEGER NOT NULL,
    UNIQUE (path, beginning)
);
