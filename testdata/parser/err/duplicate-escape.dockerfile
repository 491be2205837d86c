# escape=`
# ESCAPE=`
FROM a
