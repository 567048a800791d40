"""Every column's name, code and unit; annotation tables become the processed tables and the case table."""

# Columns, as the competition spells them
PATIENT = "patient ID"              # one eye, e.g. 0000-0001L or 600R
GENDER = "gender"                   # 1 male, 2 female
AGE = "age"                         # years
DIAGNOSIS = "diagnosis"
DRUG = "anti-VEGF"
PRE_VA, VA = "preVA", "VA"          # logMAR (preliminary round) or decimal (final round)
PRE_CST, CST = "preCST", "CST"      # um
FINDINGS = ["IRF", "SRF", "PED", "HRF"]             # 0 / 1
PRE_FINDINGS = ["preIRF", "preSRF", "prePED", "preHRF"]
CONTINUE = "continue injection"     # 0 / 1
INJECTION = "injection"             # PRE or POST
PRE, POST = "Pre injection", "Post injection"
IMAGE = "image name"                # file name without its suffix
IMAGE_NUMBER = "image number"
SIDE = "L0R1"                       # 0 left eye, 1 right eye
FINAL = "final"                     # 1 final round
AFTER = "after"                     # 1 post injection
DATA_TYPE = "data_type"             # train or test
PROCESSED, SOURCE = "processed_path", "source_path"     # relative to the root, forward slashes
