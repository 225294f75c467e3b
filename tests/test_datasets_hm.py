"""The reader of H&M: files in Kaggle's format, with what people report about them, and damaged ones."""

import polars as pl
import pytest
from raw_files import HTML_PAGE, clicks_of, items_of, note, write

from adapter4rec.datasets.sources import SOURCES
from adapter4rec.utils.errors import UserError

ANNA = "000058a12d5b43e67d225668fa1f8d618c13dc232df0cad8ffe7ad4a1091e318"
BERT = "00007d2de826758b65a93dd24ce629ed66842531df6699338c5570910a014cc2"
TRANSACTIONS = (
    "t_dat,customer_id,article_id,price,sales_channel_id",
    f"2018-09-20,{ANNA},0663713001,0.050830508474576264,2",
    f"2018-09-20,{ANNA},0541518023,0.030491525423728813,2",
    f"2018-09-20,{ANNA},0663713001,0.050830508474576264,2",
    f"2018-09-20,{BERT},0505221004,0.01523728813559322,1",
    f"2018-09-21,{ANNA},0663713001,0.050830508474576264,2",
    f"2018-09-21,{BERT},0999999999,0.01,1",
)
COLUMNS = (
    "article_id,product_code,prod_name,product_type_no,product_type_name,product_group_name,"
    "graphical_appearance_no,graphical_appearance_name,colour_group_code,colour_group_name,"
    "perceived_colour_value_id,perceived_colour_value_name,perceived_colour_master_id,"
    "perceived_colour_master_name,department_no,department_name,index_code,index_name,index_group_no,"
    "index_group_name,section_no,section_name,garment_group_no,garment_group_name,detail_desc"
)
_BETWEEN = (
    "306,Bra,Underwear,1010016,Solid,9,Black,4,Dark,5,Black,1338,Expressive Lingerie,B,Lingeries/Tights,1,"
    "Ladieswear,61,Womens Lingerie,1017"
)
DAY = 86400
START = 17794 * DAY  # 2018-09-20


def article(name, title, text):
    return f'{name},{name[1:7]},{title},{_BETWEEN},"Under-, Nightwear",{text}'


ARTICLES = (
    COLUMNS,
    article("0663713001", "Atlanta Push Body Harlow", '"Lace push-up body, with ""underwired"" cups."'),
    article("0541518023", "Rae Push (Melbourne) 2p", ""),
    article("0505221004", "Inca Jumper", "Jumper in rib-knit cotton."),
    article("0108775015", "Strap top", "Jersey top."),
)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "transactions_train.csv", *TRANSACTIONS)
    write(tmp_path / "articles.csv", *ARTICLES)
    write(tmp_path / "customers.csv", "customer_id,FN")
    return tmp_path


def read(folder):
    return SOURCES["hm"].read(folder)


def test_purchases_and_articles(folder):
    raw = read(folder)
    assert raw.interactions.collect_schema() == {"user": pl.String, "item": pl.String, "time": pl.Int64}
    assert clicks_of(raw) == [
        (ANNA, "0663713001", START),
        (ANNA, "0541518023", START),
        (ANNA, "0663713001", START),
        (BERT, "0505221004", START),
        (ANNA, "0663713001", START + DAY),
        (BERT, "0999999999", START + DAY),
    ]
    items = items_of(raw)
    assert items["0663713001"] == {
        "title": "Atlanta Push Body Harlow",
        "abstract": 'Lace push-up body, with "underwired" cups.',
    }
    assert items["0541518023"] == {"title": "Rae Push (Melbourne) 2p", "abstract": None}
    assert items["0999999999"] == {"title": None, "abstract": None}
    assert list(items) == ["0663713001", "0541518023", "0505221004", "0108775015", "0999999999"]


def test_what_it_did_is_in_the_notes(folder):
    raw = read(folder)
    assert note(raw, "same customer, article and day") == (
        "1 purchases repeat one of the same customer, article and day: kept"
    )
    assert note(raw, "not in articles.csv").startswith("1 articles")
    assert note(raw, "have no description").startswith("1 of 4 articles")
    assert not [line for line in raw.notes if "leading zero" in line]


def test_a_lost_leading_zero_is_restored(folder):
    for name, lines in (("transactions_train.csv", TRANSACTIONS), ("articles.csv", ARTICLES)):
        write(folder / name, *[line.replace(",0", ",").removeprefix("0") for line in lines])
    raw = read(folder)
    assert [row[1] for row in clicks_of(raw)][:2] == ["0663713001", "0541518023"]
    assert "0108775015" in items_of(raw)
    assert note(raw, "purchases had lost the leading zero").startswith("6 ")
    assert note(raw, "articles had lost the leading zero").startswith("4 ")


def test_images_and_articles_without_one(folder):
    image = folder / "images" / "066" / "0663713001.jpg"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"\xff\xd8 stands for a JPEG")
    empty = folder / "images" / "050" / "0505221004.jpg"
    empty.parent.mkdir()
    empty.touch()
    raw = read(folder)
    items = items_of(raw)
    assert items["0663713001"]["image"] == str(image)
    assert items["0505221004"]["image"] is None
    assert note(raw, "no image file") == "4 of 5 items have no image file, or an empty one"


def test_compressed_files_and_a_nested_folder(folder):
    write(folder / "csv" / "transactions_train.csv.gz", *TRANSACTIONS)
    (folder / "transactions_train.csv").unlink()
    assert len(clicks_of(read(folder))) == 6


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("transactions_train.csv", (HTML_PAGE,), "transactions_train.csv: the file is a web page, not data"),
        ("transactions_train.csv", ARTICLES, "transactions_train.csv: its first line is 'article_id,"),
        ("transactions_train.csv", TRANSACTIONS[:1], "transactions_train.csv: no clicks"),
        (
            "transactions_train.csv",
            (*TRANSACTIONS[:3], f"2018-09-20,{ANNA},0663"),
            "transactions_train.csv, line 4: user is missing or cut off; expected the header t_dat",
        ),
        (
            "transactions_train.csv",
            (*TRANSACTIONS[:2], f"20.09.2018,{ANNA},0663713001,0.05,2", TRANSACTIONS[3]),
            "transactions_train.csv, line 3: time is missing; expected",
        ),
        (
            "transactions_train.csv",
            (*TRANSACTIONS[:2], TRANSACTIONS[2] + ",7"),
            "transactions_train.csv, line 3: cannot read; expected",
        ),
        ("articles.csv", TRANSACTIONS, "articles.csv: no column detail_desc, prod_name"),
        ("articles.csv", (*ARTICLES[:3], "0505221004,505221,Inca Jum"), "articles.csv: article 3 is cut off"),
        ("articles.csv", (*ARTICLES[:3], '0505221004,"505221'), "articles.csv: cannot read"),
        (
            "articles.csv",
            (COLUMNS, article("0000000001", "Top", "")),
            "no article of transactions_train.csv is in",
        ),
    ],
)
def test_damaged_and_swapped_files_are_named(folder, name, lines, message):
    write(folder / name, *lines)
    with pytest.raises(UserError) as error:
        read(folder)
    assert message in str(error.value)


def test_missing_files_are_named(folder):
    (folder / "articles.csv").unlink()
    with pytest.raises(UserError, match=r"expected articles\.csv"):
        read(folder)
    with pytest.raises(UserError, match="no such folder"):
        read(folder / "nowhere")
    (folder / "transactions_train.csv").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(UserError, match="ZIP archive or an Excel workbook; unpack it"):
        read(folder)


def test_a_download_cut_off_as_gzip_is_named(folder):
    whole = write(folder / "transactions_train.csv.gz", *TRANSACTIONS).read_bytes()
    (folder / "transactions_train.csv").unlink()
    (folder / "transactions_train.csv.gz").write_bytes(whole[: len(whole) - 30])
    with pytest.raises(UserError, match=r"transactions_train\.csv\.gz: cut off after .* bytes"):
        read(folder)
