-- The product database of the fictional Tidelark Instruments. Times are UTC, money is in the named currency.
CREATE TABLE suppliers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    city TEXT NOT NULL,
    country TEXT NOT NULL,
    supplies TEXT NOT NULL,
    score_2026_q2 INTEGER,
    approved_since TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE TABLE products (
    sku TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    name_zh TEXT NOT NULL,
    category TEXT NOT NULL,
    description TEXT NOT NULL,
    status TEXT NOT NULL,
    weight_grams INTEGER NOT NULL,
    supplier_id INTEGER NOT NULL REFERENCES suppliers (id),
    introduced_on TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE TABLE prices (
    id INTEGER PRIMARY KEY,
    sku TEXT NOT NULL REFERENCES products (sku),
    currency TEXT NOT NULL,
    list_price NUMERIC NOT NULL,
    valid_from TEXT NOT NULL,
    valid_to TEXT,
    updated_at TEXT NOT NULL
);
CREATE TABLE stock (
    id INTEGER PRIMARY KEY,
    sku TEXT NOT NULL REFERENCES products (sku),
    warehouse TEXT NOT NULL,
    pieces INTEGER NOT NULL,
    reorder_below INTEGER NOT NULL,
    shelf TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE TABLE customers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    city TEXT NOT NULL,
    country TEXT NOT NULL,
    segment TEXT NOT NULL,
    account_manager TEXT NOT NULL,
    customer_since TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE TABLE orders (
    order_no TEXT PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (id),
    ordered_on TEXT NOT NULL,
    shipped_on TEXT,
    status TEXT NOT NULL,
    remark TEXT,
    updated_at TEXT NOT NULL
);
CREATE TABLE order_lines (
    order_no TEXT NOT NULL REFERENCES orders (order_no),
    line INTEGER NOT NULL,
    sku TEXT NOT NULL REFERENCES products (sku),
    quantity INTEGER NOT NULL,
    unit_price NUMERIC NOT NULL,
    currency TEXT NOT NULL,
    PRIMARY KEY (order_no, line)
);
